"""benchmarks.gpu_check: errors are told relative to the numbers, times to the GPU's limits."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from benchmarks.gpu_check.kernel_case import Cost, KernelCase, at_once, error_of, kernel_row
from benchmarks.gpu_check.probes import Ceilings

Kernel = Callable[[Tensor], Tensor]


def case(kernel: Kernel, reference: Kernel, tolerance: float | None = None) -> KernelCase:
    return KernelCase(
        "doubled",
        "1000",
        lambda device, dtype: [torch.randn(1000, device=device, dtype=dtype)],
        at_once(kernel),
        reference,
        lambda _: Cost(4000, 10**6),
        tolerance=tolerance,
    )


def double(x: Tensor) -> Tensor:
    return 2 * x


def test_rounding_is_an_error_of_its_size() -> None:
    numbers = torch.randn(1000, dtype=torch.bfloat16)
    assert error_of(case(double, double), [numbers]) == 0
    assert 0 < error_of(case(lambda x: 3 * x, lambda x: 3 * x), [numbers]) < 2**-8


@pytest.mark.parametrize(("by", "expected"), [(2.0, 0.001), (math.nan, math.inf)])
def test_an_error_is_told_relative_to_the_numbers_and_a_nan_is_none(
    by: float, expected: float
) -> None:
    wrong = case(lambda x: 1000 * x + by, lambda x: 1000 * x)
    assert error_of(wrong, [torch.ones(8)]) == pytest.approx(expected)


def test_of_token_ids_the_error_is_how_many_differ() -> None:
    wrong = case(lambda _: torch.tensor([1, 2, 3]), lambda _: torch.tensor([1, 5, 4]))
    assert error_of(wrong, [torch.ones(1)]) == 2


def test_a_kernel_that_works_in_place_is_compared_with_what_it_was_given() -> None:
    x = torch.ones(4)
    assert error_of(case(lambda x: x.mul_(2), lambda x: x.mul_(2)), [x]) == 0
    assert torch.equal(x, torch.ones(4))


@pytest.mark.parametrize(
    ("factor", "tolerance", "is_right"), [(2.0, None, True), (2.1, None, False), (2.1, 0.2, True)]
)
def test_a_row_tells_right_and_wrong(
    factor: float, tolerance: float | None, is_right: bool
) -> None:
    ceilings = Ceilings(bytes_per_s=1e9, flops_per_s=1e12)
    measured = case(lambda x: factor * x, double, tolerance)
    row = kernel_row(measured, torch.float32, "cpu", ceilings)
    assert row["is_right"] == is_right and row["dtype"] == "float32"


def test_the_limit_is_memory_or_products_whichever_takes_longer() -> None:
    ceilings = Ceilings(bytes_per_s=1e9, flops_per_s=1e12)
    assert ceilings.seconds(4e9, 1e12) == 4 and ceilings.seconds(1e9, 6e12) == 6
