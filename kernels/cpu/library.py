"""The C++ kernels as a ctypes library: which functions it has, and when there is none."""

import ctypes
import functools
import logging
from ctypes import POINTER, c_float, c_int32, c_int64, c_void_p
from pathlib import Path

import torch

from . import build

logger = logging.getLogger(__name__)

# The codes by which the C++ side knows an element type (see vec.h).
DTYPES = {torch.float32: 0, torch.bfloat16: 1}
# Of a KV cache: that of the activations, or bytes.
CACHE_DTYPES = {**DTYPES, torch.int8: 2}


class PackedWeight(ctypes.Structure):
    """What ops.h calls by that name."""

    _fields_ = (
        ("data", c_void_p),
        ("out_features", c_int64),
        ("in_features", c_int64),
        ("dtype", c_int32),
        ("out_dtype", c_int32),
        ("layout", c_int32),
        ("is_gated", c_int32),
    )


_SIGNATURES: dict[str, list[type]] = {
    "rms_norm": [*[c_void_p] * 3, *[c_int64] * 2, c_float, c_int32],
    "silu_and_mul": [*[c_void_p] * 2, *[c_int64] * 2, c_int32],
    "rope_and_store_kv": [*[c_void_p] * 7, *[c_int64] * 8, *[c_int32] * 2],
    "paged_attention": [*[c_void_p] * 6, *[c_int64] * 7, c_float, *[c_int32] * 2],
    "linear": [POINTER(PackedWeight), *[c_void_p] * 2, c_int64],
    "add_linear": [POINTER(PackedWeight), *[c_void_p] * 2, c_int64],
    "linear_argmax": [POINTER(PackedWeight), *[c_void_p] * 2, c_int64],
    "hidden_states": [c_void_p] * 5,
    "sample": [*[c_void_p] * 8, *[c_int64] * 2],
    "copy_blocks": [*[c_void_p] * 3, *[c_int64] * 4],
    "set_num_threads": [c_int64],
    "read_profile": [c_void_p],
}


@functools.cache
def load() -> ctypes.CDLL | None:
    """The library, built if need be; None, with one warning in the log, if that is not possible.

    Tests replace this function to see the references at work.
    """
    try:
        return _open(build.library_path())
    except (build.BuildError, OSError, AttributeError) as error:
        logger.warning("CPU kernels not available, using slower PyTorch code: %s", error)
        return None


def load_for(dtype: torch.dtype) -> ctypes.CDLL | None:
    """The library if it exists and computes in `dtype`; None sends a kernel to its reference."""
    return load() if dtype in DTYPES else None


def _open(path: Path) -> ctypes.CDLL:
    library = ctypes.CDLL(str(path))
    for name, argument_types in _SIGNATURES.items():
        function = getattr(library, name)
        function.argtypes, function.restype = argument_types, None
    for name in ("panel_width", "prefers_panels", "get_num_threads"):
        getattr(library, name).restype = c_int64
    return library
