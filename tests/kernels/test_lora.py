"""Adapters on a machine without a GPU: the reference, which says what they add."""

import pytest
import torch

from octavo.kernels.lora import LoraWeights, add_lora
from tests.kernels.lora_case import LoraCase


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_each_row_gets_what_its_adapter_adds(dtype: torch.dtype) -> None:
    case = LoraCase(37, 50, (24, 8, 8), rank=8, dtype=dtype, device="cpu")
    add_lora(case.out, case.x, case.weights, case.batch)
    case.check()


def test_an_adapter_in_the_place_of_another_leaves_nothing_of_it() -> None:
    weights = LoraWeights.empty(1, 4, 6, (5,), torch.float32, "cpu")
    for rank in (4, 2):
        weights.write(0, [torch.ones(rank, 6)], [torch.ones(5, rank)], scale=1.0)
    assert weights.down[0, 0].sum() == 2 * 6 and weights.up[0].sum() == 5 * 2


def test_an_adapter_of_a_higher_rank_is_refused() -> None:
    weights = LoraWeights.empty(1, 30, 6, (5,), torch.float32, "cpu")
    with pytest.raises(ValueError, match="rank 33, more than the 32"):
        weights.write(0, [torch.ones(33, 6)], [torch.ones(5, 33)], scale=1.0)
