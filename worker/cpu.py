"""What this machine's CPU computes well."""

import torch

from octavo.kernels.threads import num_threads

from .cpu_features import bfloat16_feature
from .settings import Dtype


def choose_dtype(dtype: Dtype) -> torch.dtype:
    """Return the type of weights and activations.

    `auto` is bfloat16 where the CPU has instructions for it, and float32 elsewhere: there every
    bfloat16 product would be converted first, which costs more than the memory it saves.
    """
    if dtype == "auto":
        return torch.bfloat16 if bfloat16_feature() else torch.float32
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[dtype]


def describe_device() -> str:
    """Return a line for people, such as `cpu (2 threads, avx512_bf16)`."""
    feature = bfloat16_feature() or torch.backends.cpu.get_cpu_capability().lower()
    return f"cpu ({num_threads()} threads, {feature})"
