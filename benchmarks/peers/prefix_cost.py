"""What prefix caching costs where no two prompts begin alike: throughput with it over without.

    python -m benchmarks.peers.prefix_cost [--rounds 12 --output-json FILE]

Two engines take many short turns, A B B A, because what is looked for is smaller than the
difference between two turns of one engine. Each turn has new prompts, and the KV memory has been
written to once in warming up, so that blocks are hashed, cached and evicted, and never hit.
"""

import contextlib
import json
import math
import os
import statistics
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import cyclopts

from .engines import Engine, running_octavo
from .measurement import check, turns
from .workloads import OfflineWorkload

_KV_CACHE_BYTES = 200 * 2**20
"""Less than the KV of two turns of the demo model as they are by default."""
_WITH, _WITHOUT = "with", "without"


def main(
    *,
    model: str = "demo",
    dtype: str = "bfloat16",
    num_requests: int = 32,
    input_len: int = 128,
    output_len: int = 32,
    rounds: int = 12,
    output_json: Path | None = None,
) -> None:
    """Measure the throughput of offline engines with and without prefix caching.

    Args:
        model: directory, .gguf file or `demo`.
        dtype: of weights and activations.
        num_requests: of a turn, all there from the start.
        input_len: tokens of each prompt.
        output_len: tokens of each output.
        rounds: of A B B A.
        output_json: file for the result.
    """
    workload = OfflineWorkload(
        name="W1", num_requests=num_requests, input_len=input_len, output_len=output_len
    )
    with contextlib.ExitStack() as stack:
        engines = {}
        for name in (_WITH, _WITHOUT):
            options = {
                "enable_prefix_caching": name == _WITH,
                "kv_cache_memory_bytes": _KV_CACHE_BYTES,
            }
            engines[name] = stack.enter_context(running_octavo(model, dtype, options))
        ratios = measure(engines, workload, rounds)
    result = {
        "workload": asdict(workload),
        "dtype": dtype,
        "cores": os.cpu_count(),
        "ratios": [round(each, 4) for each in ratios],
        "cost": round(1 - statistics.median(ratios), 4),
        "standard_error": round(statistics.stdev(ratios) / math.sqrt(len(ratios)), 4),
    }
    print(f"prefix caching costs {result['cost']:.2%} ± {result['standard_error']:.2%}")
    if output_json is not None:
        output_json.write_text(json.dumps(result, indent=2) + "\n")


def measure(engines: Mapping[str, Engine], workload: OfflineWorkload, rounds: int) -> list[float]:
    """Return each pass's throughput with prefix caching over without, after two to warm up."""
    for seed in (-1, -2):
        for engine in engines.values():
            engine.run(workload, workload.requests(seed), seed)
    speeds: dict[str, dict[int, float]] = {name: {} for name in engines}
    for name, number in turns(list(engines), rounds):
        requests = workload.requests(number)
        run = engines[name].run(workload, requests, number)
        check(run, workload, requests, name)
        speeds[name][number] = run.tokens_per_s(workload)
    return [speeds[_WITH][number] / speeds[_WITHOUT][number] for number in range(2 * rounds)]


if __name__ == "__main__":
    cyclopts.run(main)
