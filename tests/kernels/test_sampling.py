"""Sampling: published random words, exact cuts, the right distribution, draws that never change."""

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from octavo.kernels.cpu import library
from octavo.kernels.sampling import philox4x32, sample, sample_reference
from octavo.kernels.threads import set_num_threads


@pytest.fixture(params=["cpu", "reference"], autouse=True)
def implementation(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """Each test here holds for the C++ kernel and for the reference."""
    if request.param == "reference":
        monkeypatch.setattr(library, "load", lambda: None)
    else:
        request.getfixturevalue("cpu")
    yield request.param


def draw(
    logits: Tensor,
    *,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
    seed: int = 0,
    first_position: int = 0,
) -> list[int]:
    """One token for each row, at positions that count up."""
    rows = len(logits)
    tokens = sample(
        logits.contiguous(),
        torch.full((rows,), float(temperature)),
        torch.full((rows,), top_k, dtype=torch.int32),
        torch.full((rows,), top_p),
        torch.full((rows,), float(min_p)),
        torch.full((rows,), seed),
        torch.arange(first_position, first_position + rows),
    )
    return [int(token) for token in tokens]


def drawn_set(
    logits: list[float], *, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0
) -> set[int]:
    """The tokens that come up in 2,000 draws."""
    rows = torch.tensor(logits).expand(2000, -1)
    return set(draw(rows, top_k=top_k, top_p=top_p, min_p=min_p))


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        (
            (0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF),
            (0xFFFFFFFF, 0xFFFFFFFF),
            (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
        ),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_gives_the_words_published_with_random123(
    counter: tuple[int, ...], key: tuple[int, ...], words: tuple[int, ...]
) -> None:
    """From kat_vectors of github.com/DEShawResearch/random123."""
    computed = philox4x32(
        tuple(torch.tensor([c]) for c in counter), tuple(torch.tensor([k]) for k in key)
    )
    assert tuple(int(word) for word in computed) == words


@pytest.mark.parametrize("vocab_size", [1, 5, 64, 1003])
def test_temperature_zero_takes_the_largest_and_of_equal_ones_the_first(vocab_size: int) -> None:
    logits = torch.randn(20, vocab_size).round()
    expected = [row.index(max(row)) for row in logits.tolist()]
    assert draw(logits, temperature=0, top_k=3, top_p=0.1) == expected


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("vocab_size", [7, 64, 1003])
def test_rows_without_a_largest_number_are_told(vocab_size: int, temperature: float) -> None:
    logits = torch.randn(6, vocab_size)
    logits[0, 0] = logits[1, -1] = math.nan
    logits[2] = -math.inf
    logits[3, 5] = math.inf
    logits[4, 1:] = -math.inf
    tokens = draw(logits, temperature=temperature)
    assert tokens[:4] == [-1] * 4
    assert tokens[4] == 0
    assert tokens[5] >= 0


@pytest.mark.parametrize("vocab_size", [2, 65, 1003])
def test_a_token_at_minus_infinity_is_never_drawn(vocab_size: int) -> None:
    logits = torch.randn(500, vocab_size)
    logits[:, ::2] = -math.inf
    assert all(token % 2 == 1 for token in draw(logits, temperature=5))


def test_draws_follow_the_distribution() -> None:
    logits = torch.tensor([2.0, -1.0, 0.5, 0.0, 1.0, -2.0, 0.3])
    temperature, num_draws = 0.7, 20_000
    tokens = draw(logits.expand(num_draws, -1), temperature=temperature, seed=12345)
    expected = (logits.double() / temperature).softmax(0) * num_draws
    counts = torch.bincount(torch.tensor(tokens), minlength=7)
    chi_square = ((counts - expected) ** 2 / expected).sum()
    assert chi_square < 22.46  # The 0.999 quantile for 6 degrees of freedom.


def test_seeds_draw_independently() -> None:
    """All pairs of tokens that two neighbouring seeds draw are equally likely."""
    logits = torch.zeros(10_000, 4)
    first, second = (torch.tensor(draw(logits, seed=seed)) for seed in (7, 8))
    counts = torch.bincount(4 * first + second, minlength=16)
    chi_square = ((counts - 625.0) ** 2 / 625.0).sum()
    assert chi_square < 37.70  # The 0.999 quantile for 15 degrees of freedom.


def test_top_k_keeps_exactly_k_and_of_equal_ones_the_first() -> None:
    logits = [0.0, 1.0, 0.5, 1.0, 0.5, 0.5, -9.0]
    assert drawn_set(logits, top_k=1) == {1}
    assert drawn_set(logits, top_k=2) == {1, 3}
    assert drawn_set(logits, top_k=4) == {1, 2, 3, 4}
    assert drawn_set(logits, top_k=7) >= {0, 1, 2, 3, 4, 5}
    assert drawn_set(logits, top_k=100) >= {0, 1, 2, 3, 4, 5}


def test_top_p_keeps_the_smallest_set_and_of_equal_ones_the_first() -> None:
    logits = [math.log(p) for p in (0.1, 0.4, 0.2, 0.2, 0.1)]
    assert drawn_set(logits, top_p=1e-30) == {1}
    assert drawn_set(logits, top_p=0.39) == {1}
    assert drawn_set(logits, top_p=0.41) == {1, 2}
    assert drawn_set(logits, top_p=0.61) == {1, 2, 3}
    assert drawn_set(logits, top_p=0.85) == {0, 1, 2, 3}
    assert drawn_set(logits, top_p=0.95) == {0, 1, 2, 3, 4}


def test_min_p_keeps_tokens_by_their_share_of_the_most_probable_one() -> None:
    logits = [math.log(p) for p in (0.1, 0.4, 0.2, 0.2, 0.1)]
    assert drawn_set(logits, min_p=1) == {1}
    assert drawn_set(logits, min_p=0.51) == {1}
    assert drawn_set(logits, min_p=0.49) == {1, 2, 3}
    assert drawn_set(logits, min_p=0.26) == {1, 2, 3}
    assert drawn_set(logits, min_p=0.24) == {0, 1, 2, 3, 4}
    # top_p counts what min_p left: of 0.8, 0.7 is more than 0.4 and less than 0.6.
    assert drawn_set(logits, min_p=0.3, top_p=0.7) == {1, 2}


def test_top_p_counts_the_probability_that_top_k_left() -> None:
    logits = [math.log(p) for p in (0.4, 0.3, 0.2, 0.1)]
    # Of 0.4 + 0.3 + 0.2, 0.8 is 0.72: two tokens are too few. Of all, 0.7 would have been enough.
    assert drawn_set(logits, top_k=3, top_p=0.8) == {0, 1, 2}
    assert drawn_set(logits, top_k=3, top_p=0.77) == {0, 1}


@pytest.mark.parametrize("top_k", [1, 10, 700, 1002])
@pytest.mark.parametrize("top_p", [1.0, 0.9, 0.3])
def test_a_draw_is_never_outside_of_what_sorting_keeps(top_k: int, top_p: float) -> None:
    logits = (2 * torch.randn(60, 1003)).round(decimals=1)
    tokens = draw(logits, top_k=top_k, top_p=top_p, temperature=1.5)
    for row, token in zip(logits.double() / 1.5, tokens, strict=True):
        ranked = sorted(range(1003), key=lambda i, row=row: (-float(row[i]), i))[:top_k]  # type: ignore[misc]
        weights = row[ranked].softmax(0).tolist()
        rank = ranked.index(token)
        assert rank == 0 or sum(weights[:rank]) < top_p * (1 + 1e-6)


def test_a_draw_depends_on_its_seed_position_and_row_alone() -> None:
    logits = torch.randn(64, 3001)
    temperature = torch.rand(64) + 0.3
    temperature[::5] = 0
    top_k = torch.randint(0, 100, (64,), dtype=torch.int32)
    top_p = torch.rand(64) * 0.5 + 0.5
    seeds = torch.randint(-(2**63), 2**63 - 1, (64,))
    positions = torch.randint(0, 2**40, (64,))
    min_p = torch.rand(64) * 0.2
    columns = (logits, temperature, top_k, top_p, min_p, seeds, positions)
    set_num_threads(1)
    alone = torch.cat([sample(*(column[i : i + 1] for column in columns)) for i in range(64)])
    order = torch.randperm(64)
    for num_threads in (1, 3):
        set_num_threads(num_threads)
        assert torch.equal(sample(*columns), alone)
        assert torch.equal(
            sample(*(column[order].contiguous() for column in columns)), alone[order]
        )


def test_all_64_bits_of_seed_and_position_count() -> None:
    logits = torch.zeros(32, 50)
    base = draw(logits)
    assert draw(logits, seed=1 << 40) != base
    assert draw(logits, seed=-(1 << 63)) != base
    assert draw(logits, first_position=1 << 40) != base


@pytest.mark.parametrize("temperature", [1e-3, 0.7, 1.0, 50.0])
@pytest.mark.parametrize(("top_k", "top_p"), [(0, 1.0), (0, 0.95), (50, 1.0), (3000, 0.5)])
@pytest.mark.parametrize("min_p", [0.0, 0.02, 1.0])
def test_the_kernel_draws_what_the_reference_draws(
    temperature: float, top_k: int, top_p: float, min_p: float
) -> None:
    rows, vocab_size = 12, 5003
    logits = 3 * torch.randn(rows, vocab_size)
    logits[0] = logits[0].round()
    logits[1] = 0
    logits[2, 100:] = -math.inf
    columns = (
        logits,
        torch.full((rows,), temperature),
        torch.full((rows,), top_k, dtype=torch.int32),
        torch.full((rows,), top_p),
        torch.full((rows,), min_p),
        torch.randint(-(2**63), 2**63 - 1, (rows,)),
        torch.randint(0, 2**40, (rows,)),
    )
    assert torch.equal(sample(*columns), sample_reference(*columns))
