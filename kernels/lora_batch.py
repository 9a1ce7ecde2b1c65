"""Which adapter each row of a step has, and the rows of each adapter brought together.

Made once a step, on the device and without a word to the host, and read by every layer. Its shapes
depend on the numbers of rows and adapters alone, so that a CUDA graph can hold it.

Source: Punica's segments (Chen et al., 2023).
"""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class LoraBatch:
    """The rows of a step.

    Attributes:
        adapter_ids: int32 [num_rows], below the number of adapters; -1: none.
        rows: int32 [num_rows]: all rows in the order of their adapters.
        tiles: int32 [num_tiles, 3]: an adapter, the place in `rows` of the first row of its that a
            program takes, and the place behind the last. What is left over has no rows.
        tile_size: the most rows of a tile.
    """

    adapter_ids: Tensor
    rows: Tensor
    tiles: Tensor
    tile_size: int

    @classmethod
    def of(cls, adapter_ids: Tensor, num_adapters: int) -> Self:
        """Bring together the rows of int32 [num_rows] that have the same adapter."""
        num_rows, device = len(adapter_ids), adapter_ids.device
        tile_size = 16 if num_rows <= 256 else 64
        in_order, rows = adapter_ids.sort(stable=True)
        adapters = torch.arange(num_adapters + 1, dtype=torch.int32, device=device)
        starts = torch.searchsorted(in_order, adapters)
        num_tiles = (starts.diff() + tile_size - 1) // tile_size
        tiles_so_far = num_tiles.cumsum(0)
        # Each adapter has at most one tile that is not full.
        tiles = torch.arange(num_rows // tile_size + min(num_rows, num_adapters), device=device)
        adapter = torch.searchsorted(tiles_so_far, tiles, right=True).clamp_(max=num_adapters - 1)
        first = starts[adapter] + (tiles - (tiles_so_far - num_tiles)[adapter]) * tile_size
        last = torch.minimum(first + tile_size, starts[adapter + 1])
        columns = torch.stack((adapter, first, last), dim=1)
        return cls(adapter_ids, rows.to(torch.int32), columns.to(torch.int32), tile_size)
