"""The table of kernels: right or wrong, microseconds, and the share of what the GPU allows.

    python -m benchmarks.gpu_check.kernels GROUP BYTES FLOPS        (`kernel_rows` starts it)

A line of JSON for each kernel of a group; the limits are those of the GPU, a second.
"""

import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import astuple

import torch

from .attention_cases import DECODES, PREFILLS, decode_cases, prefill_cases
from .child import child_rows, time_shares, write_row
from .expert_cases import expert_cases
from .kernel_case import KernelCase, kernel_row
from .kernel_cases import copy_case, elementwise_cases, linear_case, sampling_case
from .linear_cases import lora_case, quantized_linear_cases
from .logit_cases import logit_cases
from .models import LLAMA_8B, QWEN3_600M
from .probes import Ceilings
from .report import Row

# Heads and tokens of a block; those that matter most first.
_LAYOUTS = ((LLAMA_8B, 16), (QWEN3_600M, 16), (LLAMA_8B, 64), (QWEN3_600M, 64))


def _decode() -> Iterator[KernelCase]:
    for model, block_size in _LAYOUTS:
        yield from decode_cases(model, DECODES, block_size)


def _prefill() -> Iterator[KernelCase]:
    for model, block_size in _LAYOUTS:
        yield from prefill_cases(model, PREFILLS, block_size)


def _quantized() -> Iterator[KernelCase]:
    for num_tokens in (16, 64, 8192):
        yield from quantized_linear_cases(LLAMA_8B, num_tokens)
    yield lora_case(LLAMA_8B, 64)


def _others() -> Iterator[KernelCase]:
    for num_tokens in (64, 8192):
        yield linear_case(LLAMA_8B, num_tokens)
        yield from elementwise_cases(LLAMA_8B, num_tokens)
    for num_rows in (1, 256):
        yield sampling_case(LLAMA_8B.vocab_size, num_rows)
        yield from logit_cases(LLAMA_8B.vocab_size, num_rows)
    yield copy_case(LLAMA_8B, 64)


def _experts() -> Iterator[KernelCase]:
    for num_tokens in (64, 4096):
        # The experts of Qwen3-30B-A3B.
        yield from expert_cases(num_tokens, 2048, 768, num_experts=128, top_k=8)


# A kernel that goes beyond its memory leaves nothing to those after it in its process.
# Attention comes first, and has most of the time.
GROUPS: dict[str, Callable[[], Iterator[KernelCase]]] = {
    "decode": _decode,
    "prefill": _prefill,
    "quantized": _quantized,
    "others": _others,
    "experts": _experts,
}


_WEIGHTS = {"decode": 3, "prefill": 3, "quantized": 2, "others": 2, "experts": 1}


def kernel_rows(ceilings: Ceilings, limit_s: float) -> Iterator[Row]:
    """Measure one group after another, each in a process and a share of the time of its own."""
    limits = [str(limit) for limit in astuple(ceilings)]
    shares = time_shares(limit_s, [_WEIGHTS[group] for group in GROUPS])
    for group, share_s in zip(GROUPS, shares, strict=True):
        name = {"kernel": f"group {group}"}
        yield from child_rows(name, "kernels", [group, *limits], share_s)


def measured(cases: Iterable[KernelCase], device: str, ceilings: Ceilings) -> Iterator[Row]:
    """Measure one case after another; one that fails is told, and the next begun."""
    for case in cases:
        for dtype in case.dtypes:
            try:
                yield kernel_row(case, dtype, device, ceilings)
            except Exception as error:  # noqa: BLE001 - whatever it is, the others are wanted
                told = f"{type(error).__name__}: {error}".partition("\n")[0]
                yield {"kernel": case.name, "shape": case.shape, "error": told}
            # What one case had is the next one's.
            if torch.cuda.is_available():
                torch.cuda.empty_cache()


def main() -> int:
    group, *limits = sys.argv[1:]
    torch.manual_seed(0)
    for row in measured(GROUPS[group](), "cuda", Ceilings(*map(float, limits))):
        write_row(row)
    return 0


if __name__ == "__main__":
    sys.exit(main())
