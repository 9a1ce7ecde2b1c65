"""What Triton's interpreter gets wrong, mended, so that a test sees what a GPU computes.

In 3.7.1 numbers are cut instead of rounded on their way to bfloat16, on the way to 8 bits a carry
is lost, and products of bfloat16 are those of its bits.
"""

from typing import Any

import numpy as np
import pytest
import torch
import triton.language as tl
from triton.runtime import interpreter

# As torch reads the bits, and the whole numbers that numpy keeps them in.
_TYPES = {
    tl.float32: (torch.float32, torch.int32),
    tl.float16: (torch.float16, torch.int16),
    tl.bfloat16: (torch.bfloat16, torch.int16),
    tl.float8e4nv: (torch.float8_e4m3fn, torch.int8),
    tl.float8e5: (torch.float8_e5m2, torch.int8),
}


def repair(patch: pytest.MonkeyPatch) -> None:
    """Put torch's conversions and products in the place of the interpreter's."""
    builder, wrong_dot = interpreter.InterpreterBuilder, interpreter.InterpreterBuilder.create_dot

    def create_dot(self: Any, a: Any, b: Any, *others: Any) -> Any:
        return wrong_dot(self, _widened(a), _widened(b), *others)

    patch.setattr(interpreter, "_convert_float", _converted)
    patch.setattr(builder, "create_dot", create_dot)


def _converted(bits: Any, kind: Any, wanted: Any, rounding: Any) -> Any:
    """Round half to even; return bits in whole numbers without a sign, as the interpreter has them.

    A GPU gives the largest number of 8 bits for what is beyond it.
    """
    (float_type, int_type), (wanted_float, wanted_int) = _TYPES[kind], _TYPES[wanted]
    contiguous = np.ascontiguousarray(bits).view(np.dtype(f"i{int_type.itemsize}"))
    numbers = torch.from_numpy(contiguous).view(float_type).float()
    if wanted_float.itemsize == 1:
        largest = torch.finfo(wanted_float).max
        numbers = numbers.clamp(-largest, largest)
    rounded = numbers.to(wanted_float).view(wanted_int).numpy()
    return rounded.view(np.dtype(f"u{wanted_int.itemsize}")).reshape(bits.shape)


def _widened(handle: Any) -> Any:
    if handle.dtype.scalar != tl.bfloat16:
        return handle
    numbers = _converted(handle.data, tl.bfloat16, tl.float32, None).view(np.float32)
    return interpreter.TensorHandle(numbers, tl.float32)
