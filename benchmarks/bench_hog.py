"""What is left of Octavo's throughput while another process takes all it gets of one core.

    python -m benchmarks.bench_hog [--num-requests 64 --input-len 128 --output-len 128 ...]

A runtime whose threads wait for one another by spinning loses far more than the half core that the
other process takes. Turns go alone, with, with, alone; the engine stays warm.
"""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import cyclopts

from .peers.engines import DrivenEngine, running_octavo
from .peers.measurement import check, ratio, turns
from .peers.workloads import OfflineWorkload

_ALONE, _WITH_HOG = "alone", "with hog"
_HOG = "import os, sys\nos.sched_setaffinity(0, {int(sys.argv[1])})\nwhile True: pass"


def main(
    *,
    model: str = "demo",
    dtype: str = "bfloat16",
    quantization: str | None = None,
    num_requests: int = 64,
    input_len: int = 128,
    output_len: int = 128,
    rounds: int = 3,
    core: int = 0,
    output_json: Path | None = None,
) -> None:
    """Measure output tokens per second alone and beside a process that never waits.

    Args:
        model: directory, .gguf file or `demo`.
        dtype: of weights and activations.
        quantization: as for `octavo serve`; unset: none.
        num_requests: requests, all there from the start.
        input_len: tokens of each prompt.
        output_len: tokens of each output.
        rounds: of A B B A.
        core: the one that the other process stays on.
        output_json: file for the result.
    """
    workload = OfflineWorkload(
        name="W1", num_requests=num_requests, input_len=input_len, output_len=output_len
    )
    options = {} if quantization is None else {"quantization": quantization}
    with running_octavo(model, dtype, options) as engine:
        speeds = measure(engine, workload, rounds, core)
    result = {
        "workload": asdict(workload),
        "dtype": quantization or dtype,
        "cores": os.cpu_count(),
        "output_tokens_per_s": speeds,
        "ratio": round(ratio(speeds[_WITH_HOG], speeds[_ALONE]), 3),
    }
    print(f"{result['ratio']:.0%} of the throughput alone is left: {speeds}")
    if output_json is not None:
        output_json.write_text(json.dumps(result, indent=2) + "\n")


def measure(
    engine: DrivenEngine, workload: OfflineWorkload, rounds: int, core: int
) -> dict[str, list[float]]:
    """Return the output tokens per second of each pass, in order, after one to warm up."""
    engine.run(workload, workload.requests(-1), -1)
    speeds: dict[str, dict[int, float]] = {_ALONE: {}, _WITH_HOG: {}}
    for name, number in turns(list(speeds), rounds):
        requests = workload.requests(2 * number + (name == _WITH_HOG))
        with hog(core) if name == _WITH_HOG else contextlib.nullcontext():
            run = engine.run(workload, requests, number)
        check(run, workload, requests, name)
        speeds[name][number] = round(run.tokens_per_s(workload), 1)
    return {name: [speed for _, speed in sorted(each.items())] for name, each in speeds.items()}


@contextlib.contextmanager
def hog(core: int) -> Iterator[None]:
    """Run a process that never waits on `core`."""
    with subprocess.Popen([sys.executable, "-c", _HOG, str(core)]) as process:
        try:
            yield
        finally:
            process.kill()


if __name__ == "__main__":
    cyclopts.run(main)
