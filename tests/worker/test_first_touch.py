"""Memory of the KV cache is there before the blocks that come into use; mincore(2) tells."""

import ctypes
import math
import mmap
import threading

import numpy as np
import pytest
import torch
from torch import Tensor

from octavo.worker import first_touch
from octavo.worker.first_touch import FirstTouch

PAGES_OF_BLOCK = 4
NUM_LAYERS, NUM_BLOCKS = 3, 100


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch) -> Tensor:
    """Zeros that nobody has touched, at the beginning of a page; 10 blocks are asked for ahead."""
    block_bytes = PAGES_OF_BLOCK * mmap.PAGESIZE
    monkeypatch.setattr(first_touch, "_AHEAD_BYTES", 10 * NUM_LAYERS * block_bytes)
    monkeypatch.setattr(first_touch, "_CALL_BYTES", 3 * block_bytes)
    shape = (NUM_LAYERS, NUM_BLOCKS, block_bytes)
    # Small pages: with huge ones, neighbours would come along.
    memory = mmap.mmap(-1, math.prod(shape))
    memory.madvise(mmap.MADV_NOHUGEPAGE)
    return torch.from_numpy(np.frombuffer(memory, np.uint8)).view(shape)


def blocks_there(cache: Tensor, layer: int) -> int:
    """Return how many blocks of a layer have all their memory, from the first one on."""
    part = cache[layer]
    pages = (ctypes.c_ubyte * (part.nbytes // mmap.PAGESIZE))()
    libc = ctypes.CDLL(None, use_errno=True)
    assert not libc.mincore(ctypes.c_void_p(part.data_ptr()), ctypes.c_size_t(part.nbytes), pages)
    is_there = [page & 1 for page in pages]
    assert sorted(is_there, reverse=True) == is_there
    return sum(is_there) // PAGES_OF_BLOCK


def wait_for_memory() -> None:
    for thread in threading.enumerate():
        if thread.name == "first-touch":
            thread.join()


def test_memory_is_there_ahead_of_the_blocks_in_use(cache: Tensor) -> None:
    touch = FirstTouch(cache)
    # Before a block is in use, 10 are there; then as many more.
    for block, expected in ((-1, 10), (4, 15), (2, 15), (50, 61), (95, NUM_BLOCKS)):
        touch.reach(block)
        wait_for_memory()
        assert [blocks_there(cache, layer) for layer in range(NUM_LAYERS)] == [expected] * 3


def test_what_is_in_the_memory_stays(cache: Tensor) -> None:
    cache[1, 3] = 7
    touch = FirstTouch(cache)
    touch.reach(NUM_BLOCKS - 1)
    wait_for_memory()
    assert (cache[1, 3] == 7).all()
    assert int(cache.count_nonzero()) == cache[1, 3].numel()


def test_a_system_that_cannot_is_asked_once(cache: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_touch, "_MADV_POPULATE_WRITE", 9999)
    touch = FirstTouch(cache)
    touch.reach(0)
    wait_for_memory()
    touch.reach(NUM_BLOCKS - 1)
    wait_for_memory()
    assert blocks_there(cache, 0) == 0
