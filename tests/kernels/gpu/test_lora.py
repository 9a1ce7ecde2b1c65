"""Adapters on a GPU against the formula in double precision."""

import pytest
import torch

from octavo.kernels.gpu.tiles import MAX_SPLIT_TILES
from octavo.kernels.lora import add_lora
from octavo.kernels.lora_batch import LoraBatch
from tests.kernels.lora_case import LoraCase


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("rank", [8, 16, 20, 128])
@pytest.mark.parametrize(
    ("num_rows", "in_features", "slice_sizes"),
    [(1, 16, (8,)), (5, 130, (136, 8, 8)), (45, 200, (24, 130)), (300, 40, (16, 16))],
)
def test_each_row_gets_what_its_adapter_adds(
    device: str,
    num_rows: int,
    in_features: int,
    slice_sizes: tuple[int, ...],
    rank: int,
    dtype: torch.dtype,
) -> None:
    case = LoraCase(num_rows, in_features, slice_sizes, rank, dtype, device)
    add_lora(case.out, case.x, case.weights, case.batch)
    case.check()


def test_programs_that_share_a_tile_leave_their_counters_as_they_were(device: str) -> None:
    case = LoraCase(6, 1700, (16,), 8, torch.float32, device)
    arrivals = torch.zeros(MAX_SPLIT_TILES, dtype=torch.int32, device=device)
    again = case.out.clone()
    for out in (case.out, again):
        add_lora(out, case.x, case.weights, case.batch, arrivals)
    case.check()
    assert torch.equal(case.out, again)
    assert not arrivals.any()


def test_rows_without_an_adapter_stay_as_they_are(device: str) -> None:
    case = LoraCase(9, 64, (16,), 8, torch.float32, device)
    nobody = LoraBatch.of(torch.full((9,), -1, dtype=torch.int32, device=device), 4)
    before = case.out.clone()
    add_lora(case.out, case.x, case.weights, nobody)
    assert torch.equal(case.out, before)
