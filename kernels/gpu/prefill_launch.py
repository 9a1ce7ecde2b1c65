"""How the attention of prompts is launched: rows and columns of its products, keys of a tile."""

from functools import lru_cache
from typing import NamedTuple

from .architecture import Architecture, TensorCores
from .launches import Launches, rounded_up


class PrefillShape(NamedTuple):
    """What a launch depends on.

    Attributes:
        least_rows: of a product: one token with the query heads of a KV head, and padding.
        padded_dim: columns of a product: head_dim and padding.
        itemsize: bytes of a number in the cache.
    """

    least_rows: int
    padded_dim: int
    itemsize: int

    @staticmethod
    @lru_cache(maxsize=4096)
    def of(heads_per_kv_head: int, head_dim: int, itemsize: int) -> "PrefillShape":
        return PrefillShape(rounded_up(heads_per_kv_head), rounded_up(head_dim), itemsize)


class PrefillLaunch(NamedTuple):
    """Rows of a product, keys of a tile, and how a program is compiled."""

    rows: int
    tile: int
    num_warps: int
    num_stages: int


def _reasoned(shape: PrefillShape, architecture: Architecture) -> PrefillLaunch:
    """Return the constants; reasoned for Hopper, not yet measured.

    128 rows for each tile that is fetched keep the L2 cache's bandwidth at half of what it gives.
    The widest tile for which registers suffice takes the fewest instructions beside products;
    numbers of 8 bits need registers to be converted in. Where a warp multiplies alone, q is in its
    registers as well: tiles are half as wide there, and rows half as many with 256 dimensions.
    """
    _, padded_dim, itemsize = shape
    cores = architecture.tensor_cores
    is_wide = cores is TensorCores.WARP_GROUP and itemsize > 1
    narrow = (4096 if cores is TensorCores.WARP else 8192) // padded_dim
    tile = 128 if is_wide and padded_dim <= 128 else min(narrow, 128)
    if itemsize == 1 and padded_dim > 128:
        tile = 16
    elif itemsize == 4:
        tile = min(4096 // padded_dim, tile)
    rows = 64 if cores is TensorCores.WARP and padded_dim > 128 else 128
    return PrefillLaunch(rows=rows, tile=tile, num_warps=8, num_stages=3)


def _is_possible(shape: PrefillShape, launch: PrefillLaunch) -> bool:
    """Say whether a program has room for a token."""
    return launch.rows >= shape.least_rows


LAUNCHES = Launches("prefill_attention", PrefillShape, PrefillLaunch, _reasoned, _is_possible)
