"""How kernels that leave their rows in 8 bits are launched: a program holds a few rows whole."""

from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl

from octavo.kernels.quantize_rows import QuantizedRows

from .aot import Specialization, powers_of_2
from .rows import MAX_DIM, RowLaunch, launch_config


class QuantizedType(NamedTuple):
    """What an activation is quantized to: Triton's type, its name in a signature, its maximum."""

    triton: Any
    name: str
    largest: float


_TYPES = {
    torch.float8_e4m3fn: QuantizedType(tl.float8e4nv, "fp8e4nv", 448.0),
    torch.int8: QuantizedType(tl.int8, "i8", 127.0),
}


def launch_quantizing(
    kernel: Any,
    num_rows: int,
    dim: int,
    dtype: torch.dtype,
    device: torch.device,
    arguments: Mapping[str, object],
) -> QuantizedRows:
    """Launch `kernel` for rows of `dim` numbers, up to 32768, that become `dtype`.

    Args:
        arguments: what the kernel takes beside those that all of these kernels have.
    """
    rows = QuantizedRows(
        torch.empty(num_rows, dim, dtype=dtype, device=device),
        torch.empty(num_rows, dtype=torch.float32, device=device),
    )
    launch = launch_config(dim)
    kernel[(triton.cdiv(num_rows, launch.rows),)](
        **arguments,
        values_ptr=rows.values,
        scales_ptr=rows.scales,
        num_rows=num_rows,
        dim=dim,
        **_constants(_TYPES[dtype], launch),
        num_warps=launch.num_warps,
    )
    return rows


def quantizing_specializations(
    kernel: Any, signature: Mapping[str, str], **constexprs: object
) -> Iterator[Specialization]:
    """Yield the compilations of `kernel`, for all types and sizes.

    Args:
        signature, constexprs: of its own arguments; a pointer to activations is "*".
    """
    launches = map(launch_config, powers_of_2(512, MAX_DIM))
    for launch, kind, dtype in product(launches, _TYPES.values(), ("bf16", "fp16")):
        yield Specialization(
            kernel,
            {name: f"*{dtype}" if each == "*" else each for name, each in signature.items()}
            | {"values_ptr": f"*{kind.name}", "scales_ptr": "*fp32"}
            | {"num_rows": "i32", "dim": "i32:16"},
            {**constexprs, **_constants(kind, launch)},
            launch.num_warps,
            3,
        )


def _constants(kind: QuantizedType, launch: RowLaunch) -> dict[str, object]:
    return {
        "LARGEST": kind.largest,
        "TYPE": kind.triton,
        "ROWS": launch.rows,
        "BLOCK": launch.block,
    }
