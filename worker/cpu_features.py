"""What the processor says of itself; read without torch, so that it takes no time."""

from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")

# As Linux calls them on x86 and on Arm, best first.
_BFLOAT16_FEATURES = ("amx_bf16", "avx512_bf16", "svebf16", "bf16")


def bfloat16_feature() -> str | None:
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
