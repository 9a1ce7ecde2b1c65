"""Times sampling from a vocabulary of 49,152, row by row and 64 rows at once.

    python -m benchmarks.bench_sampling [--threads N]

The bound is reading the logits once. Measures nothing if a token differs from the reference.
"""

import argparse

import torch
from torch import Tensor

from octavo.kernels.sampling import sample, sample_reference
from octavo.kernels.threads import num_threads, set_num_threads

from .machine_limits import MachineLimits, measure_limits, seconds_of

VOCAB_SIZE = 49_152

# Name, temperature, top_k, top_p; min_p is one comparison and stays at 0.
SETTINGS: tuple[tuple[str, float, int, float], ...] = (
    ("greedy", 0.0, 0, 1.0),
    ("temperature", 1.0, 0, 1.0),
    ("top_k 50", 1.0, 50, 1.0),
    ("top_p 0.95", 1.0, 0, 0.95),
    ("top_k 50, top_p 0.9", 0.8, 50, 0.9),
    ("top_p of flat logits", 50.0, 0, 0.9),
)


Columns = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


def columns(num_rows: int, temperature: float, top_k: int, top_p: float) -> Columns:
    """Random logits and what else `sample` takes."""
    return (
        3 * torch.randn(num_rows, VOCAB_SIZE),
        torch.full((num_rows,), temperature),
        torch.full((num_rows,), top_k, dtype=torch.int32),
        torch.full((num_rows,), top_p),
        torch.zeros(num_rows),
        torch.arange(num_rows),
        torch.arange(num_rows) + 100,
    )


def bench(name: str, inputs: Columns, limits: MachineLimits) -> None:
    num_rows = len(inputs[0])
    few = tuple(column[:4] for column in inputs)
    if not torch.equal(sample(*few), sample_reference(*few)):
        raise SystemExit(f"wrong tokens: {name}")
    ours_s = seconds_of(lambda: sample(*inputs))
    read = inputs[0].numel() * 4
    bound_s = read / limits.read_bytes_per_s
    print(
        f"{name:22}{num_rows:5}{ours_s * 1e6:10.0f}{ours_s * 1e6 / num_rows:10.1f}"
        f"{read / ours_s / 1e9:8.1f}{bound_s / ours_s:8.0%}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=num_threads())
    threads = parser.parse_args().threads
    set_num_threads(threads)
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    limits = measure_limits()
    print(limits)
    print(f"{'':22}{'rows':>5}{'µs':>10}{'µs a row':>10}{'GB/s':>8}{'bound':>8}")
    for name, temperature, top_k, top_p in SETTINGS:
        for num_rows in (1, 64):
            bench(name, columns(num_rows, temperature, top_k, top_p), limits)


if __name__ == "__main__":
    main()
