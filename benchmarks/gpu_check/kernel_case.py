"""A kernel with data to run it on, what it must compute, and what that costs at least."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from .probes import Ceilings
from .report import Row
from .timing import FLUSHED_BYTES, seconds_in_graph

Inputs = Sequence[Tensor]
Outputs = Tensor | tuple[Tensor, ...]

# Of one output, by its type, as error_of tells errors; of token ids none may differ.
TOLERANCE = {torch.float32: 2e-5, torch.float16: 2**-9, torch.bfloat16: 2**-6}

_MOST_INPUTS = 64


@dataclass(frozen=True, slots=True)
class Cost:
    """The least that has to be moved, in and out, and computed."""

    num_bytes: int
    flops: int = 0


@dataclass(frozen=True, slots=True)
class KernelCase:
    """A kernel on one shape.

    Attributes:
        make: draws the inputs, on a device, real numbers in a dtype.
        bind: takes inputs, does what is done once a step, and returns the call of the kernel, which
            returns what was computed, also where it works in place.
        reference: the same in plain PyTorch; it gets real numbers in float32.
        cost: of one call.
        tolerance: where the output is of less precision than its type.
    """

    name: str
    shape: str
    make: Callable[[str, torch.dtype], Inputs]
    bind: Callable[..., Callable[[], Outputs]]
    reference: Callable[..., Outputs]
    cost: Callable[[Inputs], Cost]
    dtypes: Sequence[torch.dtype] = (torch.bfloat16,)
    tolerance: float | None = None


def kernel_row(case: KernelCase, dtype: torch.dtype, device: str, ceilings: Ceilings) -> Row:
    """Compare with the reference on the same device, then time."""
    inputs = case.make(device, dtype)
    error = error_of(case, inputs)
    seconds = seconds_in_graph([case.bind(*each) for each in beyond_cache(inputs)])
    cost = case.cost(inputs)
    return {
        "kernel": case.name,
        "shape": case.shape,
        "dtype": str(dtype).removeprefix("torch."),
        "deviation": float(f"{error:.2g}"),
        "is_right": error <= (case.tolerance or TOLERANCE[dtype]),
        "us": round(seconds * 1e6, 2),
        "gb_s": round(cost.num_bytes / seconds / 1e9, 1),
        "tflop_s": round(cost.flops / seconds / 1e12, 1),
        "percent_of_roofline": round(100 * ceilings.seconds(cost.num_bytes, cost.flops) / seconds),
    }


def error_of(case: KernelCase, inputs: Inputs) -> float:
    """Return how far the kernel is from its reference in float32, as largest_error tells it."""
    return largest_error(case.bind(*copied(inputs))(), expected_of(case, inputs))


def expected_of(case: KernelCase, inputs: Inputs) -> Outputs:
    """Return what the reference computes in float32."""
    wide = [each.float() if each.is_floating_point() else each for each in copied(inputs)]
    return case.reference(*wide)


def at_once(kernel: Callable[..., Outputs]) -> Callable[..., Callable[[], Outputs]]:
    """Return the `bind` of a kernel that nothing has to be done for once a step."""
    return lambda *inputs: partial(kernel, *inputs)


def copied(inputs: Inputs) -> Inputs:
    return [tensor.clone() for tensor in inputs]


def beyond_cache(inputs: Inputs) -> list[Inputs]:
    """Return inputs and copies of them, of more bytes together than a GPU's cache has."""
    num_bytes = sum(tensor.nbytes for tensor in inputs)
    num_copies = min(_MOST_INPUTS, -(-FLUSHED_BYTES // num_bytes))
    return [inputs, *(copied(inputs) for _ in range(num_copies - 1))]


def all_bytes(inputs: Inputs, *outputs: Tensor) -> Cost:
    """Return the cost of reading inputs once and writing outputs once."""
    return Cost(sum(tensor.nbytes for tensor in (*inputs, *outputs)))


def largest_error(actual: Outputs, expected: Outputs) -> float:
    """Return the largest difference of real numbers, relative to their size.

    Of token ids it is how many differ.
    """
    pairs = zip(_as_tuple(actual), _as_tuple(expected), strict=True)
    return max(_error(each, exact.to(each.device)) for each, exact in pairs)


def _as_tuple(outputs: Outputs) -> tuple[Tensor, ...]:
    return (outputs,) if isinstance(outputs, Tensor) else outputs


def _error(actual: Tensor, expected: Tensor) -> float:
    if not expected.is_floating_point():
        return float((actual != expected).sum())
    actual, expected = actual.double(), expected.double()
    size = expected.abs() + expected.square().mean().sqrt()
    # Where a NaN is, there is no number that it would be near to; nothing at all is right.
    return ((actual - expected).abs() / size.clamp(min=1e-30)).nan_to_num(torch.inf).max().item()
