"""Sampling on the GPU: the noise and the tokens are those of the reference."""

import math

import pytest
import torch
import triton
import triton.language as tl
from torch import Tensor

from octavo.kernels.gpu import sampling
from octavo.kernels.gpu.gumbel_noise import gumbel_noise, gumbel_noise_of_block
from octavo.kernels.sampling import gumbel_noise as reference_noise
from octavo.kernels.sampling import sample_reference

# Temperature, top_k, top_p, min_p.
PARAMS = [
    (0.0, 3, 0.1, 0.5),
    (1.0, 0, 1.0, 0.0),
    (1e-3, 0, 1.0, 0.0),
    (50.0, 0, 1.0, 0.3),
    (0.7, 0, 0.95, 0.0),
    (50.0, 0, 0.9, 0.0),
    (1.0, 0, 1e-30, 0.0),
    (0.7, 1, 1.0, 0.0),
    (0.7, 50, 1.0, 0.02),
    (1.0, 3000, 0.5, 0.0),
    (1.3, 20, 0.9, 0.02),
    (0.9, 0, 0.999, 1.0),
]


def columns(params: list[tuple[float, int, float, float]], device: str) -> tuple[Tensor, ...]:
    """temperature, top_k, top_p, min_p, seeds and positions of a row for each of `params`."""
    temperature, top_k, top_p, min_p = zip(*params, strict=True)
    return (
        torch.tensor(temperature, device=device),
        torch.tensor(top_k, dtype=torch.int32, device=device),
        torch.tensor(top_p, device=device),
        torch.tensor(min_p, device=device),
        torch.randint(-(2**63), 2**63 - 1, (len(params),), device=device),
        torch.randint(0, 2**40, (len(params),), device=device),
    )


@triton.jit
def noise_kernel(
    seed_ptr,
    position_ptr,
    block_ptr,
    single_ptr,
    first_token,
    SIZE: tl.constexpr,
):
    places = tl.arange(0, SIZE)
    seed, position = tl.load(seed_ptr), tl.load(position_ptr)
    block = gumbel_noise_of_block(seed, position, first_token, SIZE)
    single = gumbel_noise(seed, position, first_token + places)
    tl.store(block_ptr + places, block, mask=places < SIZE)
    tl.store(single_ptr + places, single, mask=places < SIZE)


@pytest.mark.parametrize("seed", [0, 7, 1 << 40, -(1 << 63), -1])
@pytest.mark.parametrize("position", [0, 123, (1 << 40) + 5])
def test_the_noise_is_that_of_the_reference(device: str, seed: int, position: int) -> None:
    seeds, positions = (torch.tensor([value], device=device) for value in (seed, position))
    expected = reference_noise(seeds, positions, 1536)[0, 512:]
    block, single = torch.full((2, 1024), torch.nan, device=device)
    noise_kernel[(1,)](seeds, positions, block, single, 512, SIZE=1024)
    torch.testing.assert_close(block, expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(single, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("vocab_size", [1, 130, 5003])
def test_tokens_are_those_of_the_reference(device: str, vocab_size: int) -> None:
    inputs = columns(PARAMS, device)
    logits = 3 * torch.randn(len(PARAMS), vocab_size, device=device)
    assert torch.equal(sampling.sample(logits, *inputs), sample_reference(logits, *inputs))


def test_of_equal_tokens_a_cut_keeps_the_first(device: str) -> None:
    params = [p for p in PARAMS[1:] if p[1] or p[2] < 1]
    inputs = columns(params, device)
    logits = torch.randn(len(params), 300, device=device).round()
    logits[::3] = 0
    logits[-2:, 20:] = -math.inf
    assert torch.equal(sampling.sample(logits, *inputs), sample_reference(logits, *inputs))


def test_rows_with_more_candidates_than_a_list_holds_are_read_again(
    device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "_LIST_SIZE", 32)
    inputs = columns(PARAMS, device)
    logits = torch.randn(len(PARAMS), 2300, device=device)
    assert torch.equal(sampling.sample(logits, *inputs), sample_reference(logits, *inputs))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("vocab_size", [7, 3003])
def test_rows_without_a_largest_number_are_told(
    device: str, temperature: float, vocab_size: int
) -> None:
    inputs = columns([(temperature, 0, 1.0, 0.0)] * 6, device)
    logits = torch.randn(6, vocab_size, device=device)
    logits[0, 0] = logits[1, -1] = math.nan
    logits[2] = -math.inf
    logits[3, 5] = math.inf
    logits[4, 1:] = -math.inf
    tokens = sampling.sample(logits, *inputs).tolist()
    assert tokens[:5] == [-1, -1, -1, -1, 0]
    assert tokens[5] >= 0


def test_temperature_zero_takes_the_largest_and_of_equal_ones_the_first(device: str) -> None:
    inputs = columns([PARAMS[0]] * 8, device)
    logits = torch.randn(8, 4500, device=device).round()
    expected = [row.index(max(row)) for row in logits.tolist()]
    assert sampling.sample(logits, *inputs).tolist() == expected


def test_a_draw_depends_on_its_own_row_alone(device: str) -> None:
    params = PARAMS[1:6]
    inputs = (torch.randn(len(params), 700, device=device), *columns(params, device))
    together = sampling.sample(*inputs)
    order = torch.randperm(len(params))
    shuffled = sampling.sample(*(column[order].contiguous() for column in inputs))
    assert torch.equal(shuffled, together[order])


def test_no_rows_are_no_tokens(device: str) -> None:
    empty = columns(PARAMS, device)
    tokens = sampling.sample(torch.zeros(0, 10, device=device), *(each[:0] for each in empty))
    assert tokens.shape == (0,)
