"""The table of kernels on shapes that the interpreter, and a reference on a CPU, are done with."""

from collections.abc import Iterator

from benchmarks.gpu_check.attention_cases import decode_cases, prefill_cases
from benchmarks.gpu_check.expert_cases import expert_cases
from benchmarks.gpu_check.kernel_case import KernelCase
from benchmarks.gpu_check.kernel_cases import (
    copy_case,
    elementwise_cases,
    linear_case,
    sampling_case,
)
from benchmarks.gpu_check.linear_cases import lora_case, quantized_linear_cases
from benchmarks.gpu_check.logit_cases import logit_cases
from benchmarks.gpu_check.models import ModelShape

TINY = ModelShape("tiny", 96, 2, 4, 2, 16, 100, 200, True)


def tiny_cases() -> Iterator[KernelCase]:
    yield from decode_cases(TINY, [[(1, 50), (2, 3)]], block_size=16)
    yield from prefill_cases(TINY, [[(1, 20), (9, 40), (5, 5)]], block_size=16)
    yield linear_case(TINY, 5)
    yield from elementwise_cases(TINY, 5)
    yield from quantized_linear_cases(TINY, 5)
    yield lora_case(TINY, 20)
    yield sampling_case(TINY.vocab_size, 5)
    yield from logit_cases(TINY.vocab_size, 3)
    yield from expert_cases(5, 48, 32, 4, 2)
    yield copy_case(TINY, 3)
