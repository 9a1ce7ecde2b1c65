"""Times linear layers of SmolLM2-135M and Llama-3.1-8B against the limits of this machine.

    python -m benchmarks.bench_linear [--threads N]

A product is bound by arithmetic or by reading the weight, whichever takes longer; the column says
the share of that bound, above 100 % where the weight stays in the caches. torch's time is that of
its own product in the activations' dtype. Measures nothing if a result is wrong.
"""

import argparse
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from octavo.kernels.linear import Layout, PackedWeight, linear, pack_weight
from octavo.kernels.quantized_linear import pack_quantized_weight, quantized_linear_reference
from octavo.kernels.quantized_weight import QuantizedWeight, quantize_int4, quantize_int8
from octavo.kernels.threads import num_threads, set_num_threads
from octavo.worker.huge_pages import HugePages

from .machine_limits import MachineLimits, measure_limits, seconds_of

# Name, output features, input features.
LAYERS = (
    ("gate_up 135M", 3072, 576),
    ("down 135M", 576, 1536),
    ("lm_head 135M", 49152, 576),
    ("qkv 8B", 6144, 4096),
)
NUM_ROWS = (1, 8, 32, 128)


@dataclass(frozen=True)
class Case:
    """A layer as it is packed, and what it has to answer within a relative error."""

    packed: PackedWeight
    expected: Callable[[Tensor], Tensor]
    tolerance: float

    def check(self, x: Tensor) -> None:
        expected = self.expected(x)
        error = (linear(x, self.packed).double() - expected).abs().max() / expected.abs().max()
        if not error < self.tolerance:
            raise SystemExit(f"wrong result: relative error {error:.1e}")

    def bound_s(self, limits: MachineLimits, num_rows: int) -> float:
        packed = self.packed
        is_quantized = packed.layout in (Layout.INT8, Layout.Q8, Layout.Q4)
        per_s = limits.int8_ops if is_quantized else limits.flops(packed.in_dtype)
        return max(
            2 * num_rows * packed.out_features * packed.in_features / per_s,
            packed.data.nbytes / limits.read_bytes_per_s,
        )


def cases(weight: Tensor, pages: HugePages) -> Iterator[Case]:
    """The kinds of weights, in the memory that a worker has for them; head and layers alike."""
    for dtype, out_dtype in (
        (torch.float32, torch.float32),
        (torch.bfloat16, torch.bfloat16),
        (torch.bfloat16, torch.float32),
    ):
        exact = weight.to(dtype).double().T
        yield Case(
            in_huge_pages(pack_weight(weight.to(dtype), out_dtype), pages),
            functools.partial(_product, exact),
            1e-5 if out_dtype == torch.float32 else 2**-7,
        )
    for quantize in (quantize_int8, quantize_int4):
        quantized = quantize(weight)
        yield Case(
            in_huge_pages(pack_quantized_weight(quantized, torch.bfloat16), pages),
            functools.partial(_quantized_product, quantized),
            2**-7,
        )


def _product(exact: Tensor, x: Tensor) -> Tensor:
    return x.double() @ exact


def _quantized_product(weight: QuantizedWeight, x: Tensor) -> Tensor:
    return quantized_linear_reference(x, weight, torch.float64)


def in_huge_pages(packed: PackedWeight, pages: HugePages) -> PackedWeight:
    return replace(packed, data=pages.moved(packed.data)) if packed.layout.is_native else packed


def bench(name: str, case: Case, weight: Tensor, num_rows: int, limits: MachineLimits) -> None:
    packed = case.packed
    x = torch.randn(num_rows, packed.in_features).to(packed.in_dtype)
    case.check(x)
    ours_s = seconds_of(lambda: linear(x, packed), budget_s=0.15)
    plain = weight.to(packed.in_dtype)
    torch_s = seconds_of(lambda: F.linear(x, plain), budget_s=0.15)
    ops = 2 * num_rows * weight.numel() / ours_s
    dtypes = f"{str(packed.in_dtype)[6:]}→{str(packed.out_dtype)[6:]}"
    print(
        f"{name:14}{packed.layout.name.lower():8}{dtypes:19}{num_rows:5}{ours_s * 1e6:10.0f}"
        f"{ops / 1e9:8.0f}{packed.data.nbytes / ours_s / 1e9:8.1f}"
        f"{case.bound_s(limits, num_rows) / ours_s:8.0%}{torch_s * 1e6:10.0f}"
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
    header = f"{'rows':>5}{'µs':>10}{'GOP/s':>8}{'GB/s':>8}{'bound':>8}{'torch µs':>10}"
    print(f"{'':41}{header}")
    for name, out_features, in_features in LAYERS:
        weight = torch.randn(out_features, in_features)
        for case in cases(weight, HugePages()):
            for num_rows in NUM_ROWS:
                bench(name, case, weight, num_rows, limits)


if __name__ == "__main__":
    main()
