"""A kernel for the GPU that only traps, as one does that Triton could not compile."""

import triton
import triton.language as tl


@triton.jit
def trapping_kernel(x_ptr):
    x = tl.load(x_ptr)
    tl.store(x_ptr, tl.inline_asm_elementwise("trap;", "=r,r", [x], tl.int32, False, 1))
