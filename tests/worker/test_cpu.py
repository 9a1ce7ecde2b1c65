"""octavo.worker.cpu: the type that a machine computes fast."""

from pathlib import Path

import pytest
import torch

from octavo.worker import cpu, cpu_features


@pytest.mark.parametrize(
    ("cpuinfo", "dtype", "feature"),
    [
        ("processor : 0\nflags\t\t: fpu avx2 avx512_bf16 amx_bf16\n", torch.bfloat16, "amx_bf16"),
        ("Features\t: fp asimd bf16\n", torch.bfloat16, "bf16"),
        ("flags\t\t: fpu avx2\n", torch.float32, None),
    ],
    ids=["x86 with bfloat16", "Arm with bfloat16", "x86 without"],
)
def test_auto_is_bfloat16_where_the_cpu_has_it(
    cpuinfo: str,
    dtype: torch.dtype,
    feature: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "cpuinfo").write_text(cpuinfo)
    monkeypatch.setattr(cpu_features, "_CPUINFO", tmp_path / "cpuinfo")
    assert cpu.choose_dtype("auto") == dtype
    assert feature is None or f", {feature})" in cpu.describe_device()


def test_a_type_that_was_asked_for_is_taken() -> None:
    assert cpu.choose_dtype("float32") == torch.float32
    assert cpu.choose_dtype("bfloat16") == torch.bfloat16
