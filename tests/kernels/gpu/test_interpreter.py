"""The tests beside this one reach Triton, on a GPU or in its interpreter, and that is right."""

import subprocess
import sys

import pytest
import torch
import triton
import triton.language as tl

from octavo.kernels.gpu.interpreter import interpreting
from tests.interpreted import ROOT

SIZE = 32
DTYPES = pytest.mark.parametrize(
    "dtype", [torch.bfloat16, torch.float16, torch.float8_e4m3fn], ids=str
)


def test_these_tests_are_interpreted_unless_there_is_a_gpu() -> None:
    assert interpreting() != torch.cuda.is_available()


def test_a_run_of_other_tests_leaves_them_out() -> None:
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q"]
    command += ["tests/kernels/gpu", "tests/kernels/test_copy_blocks.py"]
    environment = {"PATH": "", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert "test_copy_blocks.py" in done.stdout and "kernels/gpu" not in done.stdout


@triton.jit
def convert_kernel(x_ptr, out_ptr, SIZE: tl.constexpr):
    columns = tl.arange(0, SIZE)
    tl.store(out_ptr + columns, tl.load(x_ptr + columns).to(out_ptr.dtype.element_ty))


@triton.jit
def product_kernel(a_ptr, b_ptr, out_ptr, SIZE: tl.constexpr):
    offsets = tl.arange(0, SIZE)[:, None] * SIZE + tl.arange(0, SIZE)[None, :]
    product = tl.dot(tl.load(a_ptr + offsets), tl.load(b_ptr + offsets))
    tl.store(out_ptr + offsets, product)


def skip_without_hardware(device: str, dtype: torch.dtype) -> None:
    is_fp8 = dtype == torch.float8_e4m3fn
    if is_fp8 and device == "cuda" and torch.cuda.get_device_capability() < (8, 9):
        pytest.skip("no fp8 before Ada")


@DTYPES
def test_numbers_are_rounded_half_to_even(device: str, dtype: torch.dtype) -> None:
    skip_without_hardware(device, dtype)
    x = 100 * torch.randn(SIZE, device=device)
    x[:4] = torch.tensor([1 + 2**-9, 1 + 3 * 2**-9, 0.96875, 2**-9 * 1.5])
    out = torch.zeros(SIZE, device=device).to(dtype)
    convert_kernel[(1,)](x, out, SIZE=SIZE)
    assert torch.equal(out.float(), x.to(dtype).float())
    back = torch.full((SIZE,), torch.nan, device=device)
    convert_kernel[(1,)](out, back, SIZE=SIZE)
    assert torch.equal(back, out.float())


@DTYPES
def test_products_are_those_of_the_numbers(device: str, dtype: torch.dtype) -> None:
    skip_without_hardware(device, dtype)
    a, b = torch.randn(2, SIZE, SIZE, device=device).to(dtype)
    out = torch.full((SIZE, SIZE), torch.nan, device=device)
    product_kernel[(1,)](a, b, out, SIZE=SIZE)
    exact = a.double() @ b.double()
    # Tensor cores add what fp8 gives with fewer digits than float32 has.
    torch.testing.assert_close(out.double(), exact, rtol=1e-3, atol=1e-2)
