"""Times paged attention on decoding and on whole prompts, in the shapes of 135M and 8B models.

    python -m benchmarks.bench_paged_attention [--threads N --kv-cache-dtype int8]

One operation follows the other on caches of their own, as on the layers of a model, so that keys
and values come from memory. Decoding is bound by reading them, a prompt by arithmetic; the last
column is the share of that bound. Measures nothing if a result is wrong.
"""

import argparse
from dataclasses import dataclass
from itertools import cycle

import torch
from torch import Tensor

from octavo.kernels.kv_pages import KvPages, page_size
from octavo.kernels.paged_attention import paged_attention, paged_attention_reference
from octavo.kernels.threads import num_threads, set_num_threads
from octavo.worker.huge_pages import HugePages

from .machine_limits import MachineLimits, measure_limits, seconds_of

BLOCK_SIZE = 16
# More than caches hold.
TOTAL_BYTES = 256 << 20


@dataclass(frozen=True)
class Case:
    num_requests: int
    seq_len: int
    num_new: int
    num_heads: int
    num_kv_heads: int
    head_dim: int

    def layers(self, dtype: torch.dtype, cache_dtype: torch.dtype) -> list[KvPages]:
        """Return caches of TOTAL_BYTES, in huge pages as a worker's, that hold the same."""
        num_blocks = self.num_requests * self.blocks_each
        page = page_size(BLOCK_SIZE, self.head_dim, cache_dtype)
        layer = torch.empty(num_blocks, self.num_kv_heads, 2, page, dtype=cache_dtype)
        slots = torch.arange(num_blocks * BLOCK_SIZE)
        tokens = torch.randn(2, len(slots), self.num_kv_heads, self.head_dim).to(dtype)
        KvPages(layer, BLOCK_SIZE, self.head_dim).write(slots, *tokens)
        num_layers = -(-TOTAL_BYTES // layer.nbytes)
        layers = HugePages().moved(layer.expand(num_layers, *layer.shape))
        return [KvPages(layer, BLOCK_SIZE, self.head_dim) for layer in layers]

    def inputs(self, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Queries and what paged_attention takes after the cache; blocks scattered at random."""
        num_blocks = self.num_requests * self.blocks_each
        tables = torch.randperm(num_blocks).int().view(self.num_requests, -1)
        seq_lens = torch.full((self.num_requests,), self.seq_len, dtype=torch.int32)
        starts = torch.arange(self.num_requests + 1, dtype=torch.int32) * self.num_new
        q = torch.randn(self.num_requests * self.num_new, self.num_heads, self.head_dim).to(dtype)
        return q, tables, seq_lens, starts

    @property
    def blocks_each(self) -> int:
        return -(-self.seq_len // BLOCK_SIZE)

    def flops(self) -> int:
        num_visible = sum(range(self.seq_len - self.num_new + 1, self.seq_len + 1))
        return 4 * self.num_requests * num_visible * self.num_heads * self.head_dim

    def cache_bytes(self, dtype: torch.dtype) -> int:
        num_tokens = self.num_requests * self.seq_len
        page = page_size(BLOCK_SIZE, self.head_dim, dtype)
        return 2 * num_tokens * self.num_kv_heads * page * dtype.itemsize // BLOCK_SIZE


CASES = (
    Case(1, 256, 1, 9, 3, 64),
    Case(1, 4096, 1, 9, 3, 64),
    Case(64, 192, 1, 9, 3, 64),
    Case(64, 256, 1, 9, 3, 64),
    Case(16, 1024, 1, 32, 8, 128),
    Case(1, 1024, 1024, 9, 3, 64),
    Case(1, 512, 512, 32, 8, 128),
)


def bench(case: Case, dtype: torch.dtype, cache_dtype: torch.dtype, limits: MachineLimits) -> None:
    layers, scale = case.layers(dtype, cache_dtype), case.head_dim**-0.5
    q, tables, lens, starts = case.inputs(dtype)

    def attend(pages: KvPages) -> Tensor:
        return paged_attention(q, pages, tables, lens, starts, scale)

    expected = paged_attention_reference(q, layers[0], tables, lens, starts, scale).float()
    error = (attend(layers[0]).float() - expected).abs().max()
    if not error < (1e-4 if cache_dtype == torch.float32 else 2**-5):
        raise SystemExit(f"wrong result: error {error:.1e} in {case}")
    turns = cycle(layers)
    ours_s = seconds_of(lambda: attend(next(turns)))
    bound_s = max(
        case.flops() / limits.flops(dtype), case.cache_bytes(cache_dtype) / limits.read_bytes_per_s
    )
    shape = f"{case.num_heads}/{case.num_kv_heads}x{case.head_dim}"
    print(
        f"{str(cache_dtype)[6:]:9}{case.num_requests:5}{case.seq_len:7}{case.num_new:6}{shape:>10}"
        f"{ours_s * 1e6:10.0f}{case.flops() / ours_s / 1e9:8.1f}"
        f"{case.cache_bytes(cache_dtype) / ours_s / 1e9:8.1f}{bound_s / ours_s:8.0%}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=num_threads())
    parser.add_argument("--kv-cache-dtype", choices=("auto", "int8"), default="auto")
    arguments = parser.parse_args()
    threads = arguments.threads
    set_num_threads(threads)
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    limits = measure_limits()
    print(limits)
    print(
        f"{'':9}{'reqs':>5}{'length':>7}{'new':>6}{'heads':>10}"
        f"{'µs':>10}{'GF/s':>8}{'GB/s':>8}{'bound':>8}"
    )
    for dtype in (torch.float32, torch.bfloat16):
        for case in CASES:
            bench(case, dtype, torch.int8 if arguments.kv_cache_dtype == "int8" else dtype, limits)


if __name__ == "__main__":
    main()
