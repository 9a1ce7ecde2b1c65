"""Times linear layers of SmolLM2-135M and Llama-3.1-8B against the limits of this machine.

    python -m benchmarks.bench_linear [--threads N]

A product is bound by arithmetic or by reading the weight, whichever takes longer; the last column
is the share of that bound, above 100 % where the weight stays in the caches. Measures nothing if a
result is wrong.
"""

import argparse

import torch
from torch import Tensor
from torch.nn import functional as F

from octavo.kernels.linear import linear, pack_weight

from .machine_limits import MachineLimits, measure_limits, seconds_of

# Name, output features, input features.
LAYERS = (
    ("gate_up 135M", 3072, 576),
    ("down 135M", 576, 1536),
    ("lm_head 135M", 49152, 576),
    ("qkv 8B", 6144, 4096),
)
NUM_ROWS = (1, 8, 32, 128)


def check(x: Tensor, weight: Tensor, out: Tensor) -> None:
    exact = x.double() @ weight.double().T
    error = (out.double() - exact).abs().max() / exact.abs().max()
    limit = 1e-5 if out.dtype == torch.float32 else 2**-7
    if not error < limit:
        raise SystemExit(f"wrong result: relative error {error:.1e}")


def bound_s(limits: MachineLimits, num_rows: int, weight: Tensor) -> float:
    is_float32 = weight.dtype == torch.float32
    flops = limits.float32_flops if is_float32 else limits.bfloat16_flops
    return max(
        2 * num_rows * weight.numel() / flops,
        weight.numel() * weight.element_size() / limits.read_bytes_per_s,
    )


def bench(
    name: str, weight: Tensor, num_rows: int, out_dtype: torch.dtype, limits: MachineLimits
) -> None:
    x = torch.randn(num_rows, weight.shape[1]).to(weight.dtype)
    packed = pack_weight(weight, out_dtype=out_dtype)
    check(x, weight, linear(x, packed))
    ours_s = seconds_of(lambda: linear(x, packed), budget_s=0.15)
    torch_s = seconds_of(lambda: F.linear(x, weight), budget_s=0.15)
    flops = 2 * num_rows * weight.numel() / ours_s
    read = weight.numel() * weight.element_size() / ours_s
    dtypes = f"{str(weight.dtype)[6:]}→{str(out_dtype)[6:]}"
    print(
        f"{name:14}{dtypes:19}{num_rows:5}{ours_s * 1e6:10.0f}"
        f"{flops / 1e9:8.0f}{read / 1e9:8.1f}{torch_s * 1e6:10.0f}"
        f"{bound_s(limits, num_rows, weight) / ours_s:8.0%}  {packed.layout.name.lower()}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    torch.set_num_threads(parser.parse_args().threads)
    torch.manual_seed(0)
    limits = measure_limits()
    print(limits)
    print(f"{'':33}{'rows':>5}{'µs':>10}{'GF/s':>8}{'GB/s':>8}{'torch µs':>10}{'bound':>8}")
    for name, out_features, in_features in LAYERS:
        weight = torch.randn(out_features, in_features)
        for num_rows in NUM_ROWS:
            bench(name, weight, num_rows, torch.float32, limits)
            bench(name, weight.bfloat16(), num_rows, torch.bfloat16, limits)
            if name.startswith("lm_head"):
                bench(name, weight.bfloat16(), num_rows, torch.float32, limits)


if __name__ == "__main__":
    main()
