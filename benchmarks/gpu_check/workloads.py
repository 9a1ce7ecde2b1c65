"""What the engine is asked for: token ids without meaning, of lengths that others measured with."""

import random
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

from .models import LLAMA_8B, LLAMA_8B_FP8, QWEN3_600M, ModelShape
from .probes import Ceilings

# How widely lengths are spread: of their logarithms, the standard deviation.
_SHAREGPT_SIGMA = 1.0

_FEW = 8

# Of every engine that is measured.
MAX_NUM_SEQS = 256
MAX_NUM_BATCHED_TOKENS = 8192


@dataclass(frozen=True, slots=True)
class Workload:
    """Requests, each with (tokens in, tokens out).

    Attributes:
        requests_s: how many come a second, on average; None: all are there from the start.
    """

    name: str
    lengths: Sequence[tuple[int, int]]
    requests_s: float | None = None

    @property
    def num_input_tokens(self) -> int:
        return sum(num_input for num_input, _ in self.lengths)

    @property
    def num_output_tokens(self) -> int:
        return sum(num_output for _, num_output in self.lengths)

    @property
    def longest(self) -> int:
        """Tokens of a request, in and out."""
        return max(map(sum, self.lengths))

    def beginning(self, num_requests: int, num_output: int = _FEW) -> "Workload":
        """Return the first requests, their outputs cut short.

        So many builds all that the workload runs on.
        """
        first = self.lengths[:num_requests]
        return Workload(self.name, [(given, min(wanted, num_output)) for given, wanted in first])

    def prompts(self, vocab_size: int) -> list[list[int]]:
        """Draw the prompts' tokens; no two begin alike."""
        draw = random.Random(0)
        return [draw.choices(range(2, vocab_size), k=num_input) for num_input, _ in self.lengths]


def digest(token_ids: Sequence[int]) -> str:
    """Return a few letters that tell an output from another."""
    return f"{crc32(array('q', token_ids).tobytes()):08x}"


def floor_s(
    workload: Workload, model: ModelShape, max_num_seqs: int, ceilings: Ceilings, itemsize: int
) -> float:
    """Return the least seconds for a workload, were memory and products never waited for.

    Prompts are computed, the head left out; then every step reads all weights, and each token the
    keys and values before it; steps are as few as the longest output, or the outputs at once,
    allow. Products are taken to be no faster than in bfloat16.
    """
    num_output = workload.num_output_tokens
    num_steps = max(max(output for _, output in workload.lengths), -(-num_output // max_num_seqs))
    prefill_s = workload.num_input_tokens * 2 * model.num_layer_weights / ceilings.flops_per_s
    products_s = ceilings.seconds(
        num_steps * model.num_weights * itemsize, num_output * 2 * model.num_weights
    )
    num_read = sum(
        output * prompt + output * (output + 1) // 2 for prompt, output in workload.lengths
    )
    read_bytes = num_read * model.kv_bytes_per_token(itemsize)
    return prefill_s + products_s + read_bytes / ceilings.bytes_per_s


def same(num_requests: int, num_input: int, num_output: int) -> Workload:
    name = f"{num_requests} x {num_input}/{num_output}"
    return Workload(name, [(num_input, num_output)] * num_requests)


def nano_vllm() -> Workload:
    """The benchmark of https://github.com/GeeeekExplorer/nano-vllm: bench.py."""
    draw = random.Random(0)
    return Workload(
        "nano-vllm: 256 x 100-1024/100-1024",
        [(draw.randint(100, 1024), draw.randint(100, 1024)) for _ in range(256)],
    )


def sharegpt(num_requests: int) -> Workload:
    """Lengths distributed like ShareGPT's conversations: on average 202 in, 179 out."""
    draw = random.Random(0)

    def length(average: int) -> int:
        drawn = average * draw.lognormvariate(-(_SHAREGPT_SIGMA**2) / 2, _SHAREGPT_SIGMA)
        return max(4, min(1024, round(drawn)))

    lengths = [(length(202), length(179)) for _ in range(num_requests)]
    return Workload(f"{num_requests} x ShareGPT's lengths", lengths)


@dataclass(frozen=True, slots=True)
class Case:
    """A model as it is run, and on what.

    Attributes:
        options: of LLM.
        itemsize: bytes of a weight, and of a number in the cache.
        weight: of its share of the time that several have.
    """

    model: ModelShape
    workloads: Sequence[Workload]
    options: Mapping[str, Any] = field(default_factory=dict)
    itemsize: int = 2
    weight: float = 1.0


# The figures that matter most come first: a run may be cut short.
ENGINE: Sequence[Case] = (
    Case(QWEN3_600M, (nano_vllm(), same(1, 128, 512))),
    Case(
        LLAMA_8B,
        (
            same(1, 512, 256),
            same(64, 1024, 256),
            sharegpt(1000),
            same(128, 1000, 1000),
            same(32, 128, 2048),
        ),
        weight=2.5,
    ),
    Case(
        LLAMA_8B_FP8,
        (same(128, 1000, 1000),),
        {"quantization": "fp8", "kv_cache_dtype": "fp8"},
        itemsize=1,
    ),
)
ABLATION = Case(QWEN3_600M, (same(256, 128, 256),))
