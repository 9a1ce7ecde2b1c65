"""Triton itself: a kernel runs on the GPU at hand, and compiles for one that is not."""

from typing import Any

import pytest
import torch

triton = pytest.importorskip("triton")
tl = pytest.importorskip("triton.language")
compiler = pytest.importorskip("triton.compiler")
backends = pytest.importorskip("triton.backends.compiler")

pytestmark = pytest.mark.gpu

BLOCK = 128


@triton.jit  # type: ignore[untyped-decorator]
def add_kernel(  # type: ignore[no-untyped-def]
    x_ptr,
    y_ptr,
    out_ptr,
    num_elements,
    BLOCK_SIZE: tl.constexpr,  # type: ignore[name-defined]
):
    offsets = tl.program_id(0) * BLOCK_SIZE + tl.arange(0, BLOCK_SIZE)
    is_inside = offsets < num_elements
    x = tl.load(x_ptr + offsets, mask=is_inside)
    y = tl.load(y_ptr + offsets, mask=is_inside)
    tl.store(out_ptr + offsets, x + y, mask=is_inside)


def test_a_kernel_runs_and_stays_within_its_bounds(cuda: str) -> None:
    size = 3 * BLOCK - 5
    x, y = torch.randn(2, size, device=cuda)
    # What lies behind the output is not the kernel's.
    out = torch.full((4 * BLOCK,), torch.nan, device=cuda)
    add_kernel[(3,)](x, y, out, size, BLOCK_SIZE=BLOCK)
    assert torch.equal(out[:size], x + y)
    assert out[size:].isnan().all()


def test_a_kernel_compiles_for_hopper_on_any_machine() -> None:
    pointers = dict.fromkeys(("x_ptr", "y_ptr", "out_ptr"), "*fp32")
    signature: dict[str, Any] = {**pointers, "num_elements": "i32", "BLOCK_SIZE": "constexpr"}
    source = compiler.ASTSource(
        fn=add_kernel, signature=signature, constexprs={"BLOCK_SIZE": BLOCK}
    )
    compiled = triton.compile(source, target=backends.GPUTarget("cuda", 90, 32))
    assert compiled.asm["cubin"].startswith(b"\x7fELF")
    assert ".target sm_90" in compiled.asm["ptx"]
