"""What this machine's CPU computes well."""

from pathlib import Path

import torch

from .settings import Dtype

_CPUINFO = Path("/proc/cpuinfo")

# As Linux calls them on x86 and on Arm, best first.
_BFLOAT16_FEATURES = ("amx_bf16", "avx512_bf16", "svebf16", "bf16")


def choose_dtype(dtype: Dtype) -> torch.dtype:
    """Return the type of weights and activations.

    `auto` is bfloat16 where the CPU has instructions for it, and float32 elsewhere: there every
    bfloat16 product would be converted first, which costs more than the memory it saves.
    """
    if dtype == "auto":
        return torch.bfloat16 if _bfloat16_feature() else torch.float32
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[dtype]


def describe_device() -> str:
    """Return a line for people, such as `cpu (2 threads, avx512_bf16)`."""
    feature = _bfloat16_feature() or torch.backends.cpu.get_cpu_capability().lower()
    return f"cpu ({torch.get_num_threads()} threads, {feature})"


def _bfloat16_feature() -> str | None:
    """Return the CPU's best instructions for bfloat16, or None (also where Linux is not)."""
    if not _CPUINFO.exists():
        return None
    features: set[str] = set()
    for line in _CPUINFO.read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            features = set(value.split())
            break
    return next((feature for feature in _BFLOAT16_FEATURES if feature in features), None)
