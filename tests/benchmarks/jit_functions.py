"""Functions for the GPU that call one another, and one that nothing calls."""

import triton
import triton.language as tl


@triton.jit
def tripled(x):
    return 3 * x


@triton.jit
def doubled(x):
    return tripled(x) - x


@triton.jit
def whole_kernel(x_ptr):
    tl.store(x_ptr, doubled(tl.load(x_ptr)))


@triton.jit
def forgotten_kernel(x_ptr):
    tl.store(x_ptr, 0)
