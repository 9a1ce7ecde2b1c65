"""Throughput without a network: scheduler and model in one process, against transformers.

    python -m benchmarks.bench_offline [--num-requests 64 --input-len 128 --output-len 128 ...]

transformers generates all requests as one static batch, which suits it: all prompts have one length
and all outputs end together. Both run greedily on the same text, in turns, in this process.
"""

import argparse as documented
import csv
import decimal
import difflib
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cyclopts
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

from octavo import LLM, SamplingParams
from octavo.kernels.threads import num_threads
from octavo.model_files import resolve_model
from octavo.worker.settings import Dtype

# Greedy choices in bfloat16 differ where two logits nearly tie; a wrong model agrees on none.
_LEAST_AGREEMENT = 0.75


@dataclass(frozen=True, kw_only=True)
class Workload:
    num_requests: int
    input_len: int
    output_len: int


def main(
    *,
    model: str = "demo",
    num_requests: int = 64,
    input_len: int = 128,
    output_len: int = 128,
    dtype: Dtype = "bfloat16",
    rounds: int = 1,
    output_json: Path | None = None,
) -> None:
    """Measure output tokens per second of both, in alternating rounds.

    Args:
        model: directory, .gguf file or `demo`.
        num_requests: requests, all there from the start.
        input_len: tokens of each prompt.
        output_len: tokens of each output.
        dtype: of weights and activations, on both sides.
        rounds: measurements of each; the median counts.
        output_json: file for the result.
    """
    path = resolve_model(model)
    workload = Workload(num_requests=num_requests, input_len=input_len, output_len=output_len)
    prompts = read_prompts(path, workload)
    ours = octavo_generate(path, dtype, workload)
    theirs = transformers_generate(path, dtype, workload)
    measured: dict[str, list[float]] = {"octavo": [], "transformers": []}
    for _ in range(rounds):
        our_tokens, seconds = timed(ours, prompts)
        measured["octavo"].append(num_requests * output_len / seconds)
        their_tokens, seconds = timed(theirs, prompts)
        measured["transformers"].append(num_requests * output_len / seconds)
        check_agreement(our_tokens, their_tokens)
    report(path, dtype, workload, measured, output_json)


def read_prompts(path: Path, workload: Workload) -> list[list[int]]:
    """Return prompts cut from the documentation of Python's library, no two alike."""
    text = "\n".join(str(m.__doc__) for m in (documented, csv, decimal, difflib, statistics))
    tokens = AutoTokenizer.from_pretrained(**source(path)).encode(text)
    stride = max(1, (len(tokens) - workload.input_len) // workload.num_requests)
    return [
        tokens[start : start + workload.input_len]
        for start in range(0, stride * workload.num_requests, stride)
    ]


def source(path: Path) -> dict[str, Any]:
    """Return what `from_pretrained` wants to hear of a directory or a GGUF file."""
    if path.is_dir():
        return {"pretrained_model_name_or_path": path}
    return {"pretrained_model_name_or_path": path.parent, "gguf_file": path.name}


Generate = Callable[[list[list[int]]], list[list[int]]]


def octavo_generate(path: Path, dtype: Dtype, workload: Workload) -> Generate:
    # Without cached prefixes: each round computes every prompt.
    llm = LLM(
        str(path), dtype=dtype, max_num_seqs=workload.num_requests, enable_prefix_caching=False
    )
    params = SamplingParams(temperature=0, max_tokens=workload.output_len, ignore_eos=True)

    def generate(prompts: list[list[int]]) -> list[list[int]]:
        results = llm.generate(prompts, params, use_tqdm=False)
        return [result.outputs[0].token_ids for result in results]

    return generate


def transformers_generate(path: Path, dtype: Dtype, workload: Workload) -> Generate:
    torch_dtype = getattr(torch, dtype)
    # Plain matrices, as ours are: packed 4-bit ones would be slower in bfloat16.
    packing = {} if path.is_dir() else {"quantization_config": GgufConfig(dequantize=True)}
    model = AutoModelForCausalLM.from_pretrained(
        **source(path), dtype=torch_dtype, **packing
    ).eval()

    def generate(prompts: list[list[int]]) -> list[list[int]]:
        tokens: list[list[int]] = model.generate(
            torch.tensor(prompts),
            attention_mask=torch.ones(len(prompts), workload.input_len, dtype=torch.long),
            do_sample=False,
            min_new_tokens=workload.output_len,
            max_new_tokens=workload.output_len,
        )[:, workload.input_len :].tolist()
        return tokens

    return generate


def timed(generate: Generate, prompts: list[list[int]]) -> tuple[list[list[int]], float]:
    started = time.perf_counter()
    tokens = generate(prompts)
    return tokens, time.perf_counter() - started


def check_agreement(ours: list[list[int]], theirs: list[list[int]]) -> None:
    """End the benchmark if the two compute different things: fast and wrong is no result."""
    if [len(tokens) for tokens in ours] != [len(tokens) for tokens in theirs]:
        sys.exit("the two generated different numbers of tokens; nothing is reported")
    same = sum(a[0] == b[0] for a, b in zip(ours, theirs, strict=True)) / len(ours)
    if same < _LEAST_AGREEMENT:
        sys.exit(f"only {same:.0%} of the first tokens agree; nothing is reported")


def report(
    path: Path,
    dtype: Dtype,
    workload: Workload,
    measured: dict[str, list[float]],
    output_json: Path | None,
) -> None:
    ours, theirs = (statistics.median(measured[name]) for name in ("octavo", "transformers"))
    print(f"{path.name} {dtype}, {num_threads()} threads, {workload}")
    print(f"octavo        {ours:8.1f} output tok/s   {measured['octavo']}")
    print(f"transformers  {theirs:8.1f} output tok/s   {measured['transformers']}")
    print(f"ratio         {ours / theirs:8.2f}")
    if output_json is not None:
        result = {
            "model": path.name,
            "dtype": dtype,
            "threads": num_threads(),
            "workload": asdict(workload),
            "output_tokens_per_s": measured,
            "ratio": ours / theirs,
        }
        output_json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    cyclopts.run(main)
