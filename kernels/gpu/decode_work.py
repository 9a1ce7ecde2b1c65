"""Who reads which keys in a decode step: tiles dealt out in equal shares, on the device.

All tiles of all requests stand in one row; of it, each of a fixed number of programs takes the
same stretch, wherever requests begin and end in it. One request of 64K tokens beside fifteen of 4K
then takes as long as any other batch of as many tokens. As nothing of this is known to the host,
a CUDA graph that was captured once serves every batch of its size.

    requests    |    0    | 1 |            2            |  3  |
    programs    |   0    |   1    |   2    |   3    |   4     |

Within a program a request is either whole, and its output final, or a part, to be merged with the
others. A program has at most two parts: what an earlier one began (slot 0), at its start, and
what a later one will go on with (slot 1), at its end.

Sources: Stream-K (Osama et al., 2023) for the row and its equal shares; Flash-Decoding (Dao et
al., 2023) for the merge.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from .aot import Specialization
from .architecture import Architecture, TensorCores
from .launches import Launches, rounded_up

# The least rows of a product.
_MIN_ROWS = 16
# Comparisons of requests with programs that the plan makes together.
_COMPARED = 8192
# Multiprocessors that Triton's interpreter is taken to have: enough for several parts.
_INTERPRETED_MULTIPROCESSORS = 4


class DecodeShape(NamedTuple):
    """What a launch depends on.

    Attributes:
        rows: of a product: the heads of a KV head for each new token, and padding.
        padded_dim: columns of a product: head_dim and padding.
        itemsize: bytes of a number in the cache.
    """

    rows: int
    padded_dim: int
    itemsize: int

    @staticmethod
    def of(num_rows: int, head_dim: int, itemsize: int) -> "DecodeShape":
        return DecodeShape(rounded_up(num_rows, _MIN_ROWS), rounded_up(head_dim), itemsize)


class DecodeLaunch(NamedTuple):
    """How the attention kernel of a decode step is launched.

    Attributes:
        tile: tokens in a tile.
        programs_per_sm: programs that a multiprocessor holds at the same time.
    """

    tile: int
    programs_per_sm: int
    num_warps: int
    num_stages: int


def _reasoned(shape: DecodeShape, architecture: Architecture) -> DecodeLaunch:
    """Return the constants; reasoned for Hopper, not yet measured.

    A tile of keys and one of values have 16 KiB each in 16 bits. Two of both are under way while
    one is computed with, in each of two programs: 128 KiB on each multiprocessor, of which the
    memory's 4.3 TB/s and about 1.2 microseconds of latency ask for 40. More rows than 32 take
    so many registers that there is one program, with twice the warps. Where a warp multiplies
    alone, memory is slower, and shared memory smaller: so are tiles, the more where two programs
    share 99 KiB.
    """
    is_large = shape.rows > 32
    if architecture.tensor_cores is not TensorCores.WARP:
        num_elements, num_stages = 16384, 4
    elif architecture.shared_kib >= 144 or is_large:
        num_elements, num_stages = 8192, 3
    else:
        num_elements, num_stages = 4096, 4
    num_elements //= max(shape.itemsize, 2)
    num_stages += shape.itemsize == 1
    return DecodeLaunch(
        tile=max(min(num_elements // shape.padded_dim, 128), 16),
        programs_per_sm=1 if is_large else 2,
        num_warps=8 if is_large else 4,
        num_stages=num_stages,
    )


LAUNCHES = Launches("decode_attention", DecodeShape, DecodeLaunch, _reasoned)


@dataclass(frozen=True, slots=True)
class DecodeWork:
    """The shares of one kind of attention layer, and memory for its parts; made once.

    Layers of one kind use it one after the other. What it holds of a step is on the device.

    Attributes:
        query_len: new tokens of each request: 1, or more where drafts are verified.
        window: how many keys a token sees, itself included; 0 for all.
        shape, launch: of the attention kernel.
        tile_starts: int32 [max_num_requests + 1], tiles of the requests before.
        first_requests: int32 [num_programs], whose keys a program reads first.
        partial_out: float32 [num_programs, 2, query_len, num_heads, head_dim], as if a part's
            keys were all.
        partial_lse: float32 [num_programs, 2, query_len, num_heads], the logarithm to base 2 of
            what a part's exponentials sum up to.
    """

    query_len: int
    window: int
    shape: DecodeShape
    launch: DecodeLaunch
    tile_starts: Tensor
    first_requests: Tensor
    partial_out: Tensor
    partial_lse: Tensor

    @staticmethod
    def allocate(
        k_cache: Tensor, num_heads: int, max_num_requests: int, query_len: int = 1, window: int = 0
    ) -> "DecodeWork":
        """Make room for the steps of up to so many requests, padding included.

        Args:
            k_cache: of any layer, [num_blocks, block_size, num_kv_heads, head_dim].
        """
        _, _, num_kv_heads, head_dim = k_cache.shape
        num_rows = query_len * num_heads // num_kv_heads
        shape = DecodeShape.of(num_rows, head_dim, k_cache.itemsize)
        launch = LAUNCHES.choose(shape, k_cache.device)
        resident = launch.programs_per_sm * _num_multiprocessors(k_cache.device)
        num_programs = max(resident // num_kv_heads, 1)
        partial = (num_programs, 2, query_len, num_heads)
        device = k_cache.device
        return DecodeWork(
            query_len=query_len,
            window=window,
            shape=shape,
            launch=launch,
            tile_starts=torch.empty(max_num_requests + 1, dtype=torch.int32, device=device),
            first_requests=torch.empty(num_programs, dtype=torch.int32, device=device),
            partial_out=torch.empty((*partial, head_dim), dtype=torch.float32, device=device),
            partial_lse=torch.empty(partial, dtype=torch.float32, device=device),
        )

    @property
    def num_programs(self) -> int:
        """Of each KV head."""
        return len(self.first_requests)


def plan_decode_work(work: DecodeWork, seq_lens: Tensor) -> None:
    """Deal out the tiles of a step, once for all layers that `work` is for.

    Args:
        seq_lens: int32 [num_requests], tokens in the cache including this step's; 0 for a row of
            padding, which gets no tile.
    """
    num_requests = len(seq_lens)
    assert num_requests < len(work.tile_starts), (num_requests, len(work.tile_starts))
    assert seq_lens.dtype == torch.int32 and seq_lens.is_contiguous()
    padded_programs = triton.next_power_of_2(work.num_programs)
    _plan_kernel[(1,)](
        seq_lens_ptr=seq_lens,
        tile_starts_ptr=work.tile_starts,
        first_requests_ptr=work.first_requests,
        num_requests=num_requests,
        QUERY_LEN=work.query_len,
        WINDOW=work.window,
        TILE=work.launch.tile,
        NUM_PROGRAMS=work.num_programs,
        PADDED_PROGRAMS=padded_programs,
        CHUNK=_COMPARED // padded_programs,
        num_warps=8,
    )


def _num_multiprocessors(device: torch.device) -> int:
    if device.type != "cuda":
        return _INTERPRETED_MULTIPROCESSORS
    return torch.cuda.get_device_properties(device).multi_processor_count


def aot_specializations() -> Iterator[Specialization]:
    pointers = ("seq_lens_ptr", "tile_starts_ptr", "first_requests_ptr")
    signature = dict.fromkeys(pointers, "*i32") | {"num_requests": "i32"}
    for num_programs, window in ((33, 0), (264, 4096)):
        padded_programs = triton.next_power_of_2(num_programs)
        constexprs = {
            "QUERY_LEN": 1,
            "WINDOW": window,
            "TILE": 64,
            "NUM_PROGRAMS": num_programs,
            "PADDED_PROGRAMS": padded_programs,
            "CHUNK": _COMPARED // padded_programs,
        }
        yield Specialization(_plan_kernel, signature, constexprs, num_warps=8, num_stages=3)


@triton.jit
def first_read_key(seq_len, QUERY_LEN: tl.constexpr, WINDOW: tl.constexpr):
    """Return the position of the first key that some new token sees."""
    if WINDOW == 0:
        return tl.zeros_like(seq_len)
    else:
        return tl.maximum(seq_len - QUERY_LEN + 1 - WINDOW, 0)


@triton.jit
def share_start(program, num_tiles, NUM_PROGRAMS: tl.constexpr):
    """Return the tile that a program starts with; shares differ by at most one tile.

    Where there are fewer tiles than programs, the last programs start behind the last tile.
    """
    num_busy = tl.maximum(tl.minimum(num_tiles, NUM_PROGRAMS), 1)
    start = (program.to(tl.int64) * num_tiles // num_busy).to(tl.int32)
    return tl.minimum(start, num_tiles)


@triton.jit
def program_of(tile, num_tiles, NUM_PROGRAMS: tl.constexpr):
    """Return the program whose share a tile is in: the first that ends behind it."""
    num_busy = tl.minimum(num_tiles, NUM_PROGRAMS)
    return (tl.cdiv((tile + 1).to(tl.int64) * num_busy, num_tiles) - 1).to(tl.int32)


@triton.jit
def part_of(program, begins_request):
    """Return where a program keeps a part: behind, if others go on with it, else in front."""
    return program * 2 + begins_request.to(tl.int32)


@triton.jit
def _num_tiles(
    seq_lens_ptr,
    requests,
    num_requests,
    QUERY_LEN: tl.constexpr,
    WINDOW: tl.constexpr,
    TILE: tl.constexpr,
):
    seq_lens = tl.load(seq_lens_ptr + requests, mask=requests < num_requests, other=0)
    return tl.cdiv(seq_lens, TILE) - first_read_key(seq_lens, QUERY_LEN, WINDOW) // TILE


@triton.jit(do_not_specialize=["num_requests"])
def _plan_kernel(
    seq_lens_ptr,
    tile_starts_ptr,
    first_requests_ptr,
    num_requests,
    QUERY_LEN: tl.constexpr,
    WINDOW: tl.constexpr,
    TILE: tl.constexpr,
    NUM_PROGRAMS: tl.constexpr,
    PADDED_PROGRAMS: tl.constexpr,
    CHUNK: tl.constexpr,
):
    chunk = tl.arange(0, CHUNK)
    num_tiles = 0
    for start in range(0, num_requests, CHUNK):
        tiles = _num_tiles(seq_lens_ptr, start + chunk, num_requests, QUERY_LEN, WINDOW, TILE)
        num_tiles += tl.sum(tiles)

    programs = tl.arange(0, PADDED_PROGRAMS)
    share_starts = share_start(programs, num_tiles, NUM_PROGRAMS)
    # Of each program, how many requests end before its share: the next one is its first.
    num_before = tl.zeros([PADDED_PROGRAMS], tl.int32)
    tile_start = 0
    for start in range(0, num_requests, CHUNK):
        requests = start + chunk
        tiles = _num_tiles(seq_lens_ptr, requests, num_requests, QUERY_LEN, WINDOW, TILE)
        ends = tile_start + tl.cumsum(tiles)
        is_before = (ends[None, :] <= share_starts[:, None]) & (requests < num_requests)[None, :]
        num_before += tl.sum(is_before.to(tl.int32), axis=1)
        tl.store(tile_starts_ptr + requests, ends - tiles, mask=requests < num_requests)
        tile_start += tl.sum(tiles)
    tl.store(tile_starts_ptr + num_requests, num_tiles)
    tl.store(first_requests_ptr + programs, num_before, mask=programs < NUM_PROGRAMS)
