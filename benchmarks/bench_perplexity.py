"""What a dtype or a quantization costs in perplexity, on the documentation inside Python's library.

    python -m benchmarks.bench_perplexity [--kv-cache-dtype int8 --cpu-threads N --output-json FILE]

The demo model reads the text in windows, each from an empty context, through the offline API. The
weights of its file are 4-bit numbers already (Q4_1; the head is Q8_0): the float32 baseline, to
which every rise is relative, computes with exactly these. All others have the KV cache asked for.
"""

import importlib
import inspect
import json
import math
import pydoc
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import cyclopts

from octavo import LLM, SamplingParams
from octavo.gguf_file import GGUFFile
from octavo.model_files import demo_model_path
from octavo.router.gguf_tokenizer import build_tokenizer
from octavo.worker.settings import Dtype, KvCacheDtype, Quantization

MODULES = (
    *("argparse", "bisect", "collections", "configparser", "contextlib", "csv", "decimal"),
    *("difflib", "enum", "fractions", "functools", "heapq", "inspect", "ipaddress", "itertools"),
    *("json", "logging", "math", "os", "pathlib", "pickle", "random", "re", "shutil", "socket"),
    *("statistics", "string", "subprocess", "tempfile", "textwrap", "threading", "typing"),
)
WINDOW_TOKENS = 1024
NUM_WINDOWS = 17


@dataclass(frozen=True, slots=True)
class Variant:
    name: str
    dtype: Dtype
    quantization: Quantization | None = None


VARIANTS = (
    Variant("float32", "float32"),
    Variant("bfloat16", "bfloat16"),
    Variant("int8", "bfloat16", "int8"),
    Variant("gguf", "bfloat16", "gguf"),
    Variant("int4", "bfloat16", "int4"),
)


@dataclass(frozen=True, slots=True)
class Measured:
    variant: str
    perplexity: float
    rise: float
    """Over float32, as a share of its perplexity."""


def documentation() -> Iterator[str]:
    """What the modules say of themselves and of all that they offer."""
    for name in MODULES:
        module = importlib.import_module(name)
        yield from filter(None, (inspect.getdoc(module),))
        for member_name, member in sorted(vars(module).items()):
            if pydoc.visiblename(member_name) and callable(member):
                yield from filter(None, (inspect.getdoc(member),))


def windows() -> list[list[int]]:
    tokenizer = build_tokenizer(GGUFFile.open(demo_model_path()).metadata)
    tokens = tokenizer.encode("\n\n".join(documentation())).ids
    if len(tokens) < NUM_WINDOWS * WINDOW_TOKENS:
        raise SystemExit(f"this Python's documentation has only {len(tokens)} tokens")
    return [tokens[i * WINDOW_TOKENS :][:WINDOW_TOKENS] for i in range(NUM_WINDOWS)]


def perplexity(
    variant: Variant,
    texts: list[list[int]],
    kv_cache_dtype: KvCacheDtype = "auto",
    cpu_threads: int | None = None,
) -> float:
    """Return exp of the mean surprise of all tokens but the windows' first."""
    llm = LLM(
        "demo",
        dtype=variant.dtype,
        quantization=variant.quantization,
        kv_cache_dtype=kv_cache_dtype,
        max_model_len=WINDOW_TOKENS + 1,
        max_num_seqs=NUM_WINDOWS,
        cpu_threads=cpu_threads,
    )
    params = SamplingParams(max_tokens=1, temperature=0, prompt_logprobs=0)
    outputs = llm.generate([{"prompt_token_ids": text} for text in texts], params, use_tqdm=False)
    llm.close()
    surprises = []
    for text, output in zip(texts, outputs, strict=True):
        assert output.prompt_logprobs is not None
        for token, position in zip(text[1:], output.prompt_logprobs[1:], strict=True):
            assert position is not None
            surprises.append(-position[token].logprob)
    assert len(surprises) == NUM_WINDOWS * (WINDOW_TOKENS - 1)
    return math.exp(sum(surprises) / len(surprises))


def main(
    *,
    kv_cache_dtype: KvCacheDtype = "auto",
    cpu_threads: int | None = None,
    output_json: Path | None = None,
) -> None:
    texts = windows()
    results: list[Measured] = []
    print(f"{NUM_WINDOWS} windows of {WINDOW_TOKENS} tokens, perplexity and rise over float32")
    for variant in VARIANTS:
        is_baseline = variant == VARIANTS[0]
        value = perplexity(variant, texts, "auto" if is_baseline else kv_cache_dtype, cpu_threads)
        baseline = results[0].perplexity if results else value
        results.append(Measured(variant.name, value, value / baseline - 1))
        print(f"{variant.name:26}{value:10.4f}{results[-1].rise:+10.2%}", flush=True)
    if output_json:
        report = {
            "num_windows": NUM_WINDOWS,
            "window_tokens": WINDOW_TOKENS,
            "kv_cache_dtype": kv_cache_dtype,
            "results": [asdict(result) for result in results],
        }
        output_json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    cyclopts.run(main)
