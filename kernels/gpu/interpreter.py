"""Whether Triton's kernels run in its interpreter, on tensors of the CPU, as tests have it."""

import os
from functools import cache


@cache
def interpreting() -> bool:
    """Say whether TRITON_INTERPRET is set; Triton reads it where a kernel is defined, once.

    With it, operations on CPU tensors go to the Triton side as those on CUDA tensors do.
    """
    return os.environ.get("TRITON_INTERPRET") == "1"
