"""Octavo beside vLLM, llama.cpp and transformers, in turns, on this machine.

    python -m benchmarks.peers.run [--plan] [--workloads W1 W7] [--engines octavo:int8 vllm:bf16]

Each comparison goes A B B A (of more engines, A B C C B A), all warm, the others paused, with the
same prompts in the same pass; the median of the passes' ratios counts. README.md says how to get
the peers. Without --workloads it is the table of the bars.
"""

import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import cyclopts
import psutil
from cyclopts import Parameter

from benchmarks.machine_limits import measure_limits
from octavo.gguf_file import GGUFFile
from octavo.model_files import resolve_model
from octavo.worker.models.config import ModelConfig

from .comparisons import TABLE, Comparison, start_s, turn_s
from .installation import Installation
from .results import DEFAULT_PATH, describe_machine, merge, rows_of
from .roofline import Roofline
from .session import Session
from .workloads import WORKLOADS, OfflineWorkload

_MOST_BUSY_CORES = 0.2
_LOOK_S = 2.0
_BEYOND_THE_TABLE = ("octavo:bf16", "vllm:bf16"), 3
"""Engines and rounds of a workload that the table lacks."""

Names = Annotated[list[str] | None, Parameter(consume_multiple=True)]


def main(
    *,
    workloads: Names = None,
    engines: Names = None,
    scale: float = 1.0,
    rounds: int | None = None,
    peers: Path = Path("~/.cache/octavo/peers"),
    plan: bool = False,
    force: bool = False,
    output_json: Path = DEFAULT_PATH,
) -> int:
    """Measure, print and merge into the JSON file.

    Args:
        workloads: of the table, or W2 and W9; unset: the table.
        engines: `engine:format` of octavo, vllm, llama.cpp, transformers; unset: those of the
            table.
        scale: of the numbers of requests.
        rounds: of A B B A; unset: those of the table.
        peers: where the peers are installed.
        plan: print how many minutes it takes, and do nothing.
        force: measure on a machine that is busy.
        output_json: file for the results, which keeps what is not measured now.
    """
    comparisons = choose(workloads, engines, scale, rounds)
    if plan:
        print_plan(comparisons)
        return 0
    busy_cores = round(psutil.cpu_percent(_LOOK_S) / 100 * (os.cpu_count() or 1), 2)
    if busy_cores > _MOST_BUSY_CORES and not force:
        print(f"others keep {busy_cores} cores busy: wait, or --force", file=sys.stderr)
        return 1
    machine = describe_machine(limits := measure_limits()) | {"busy_cores_before": busy_cores}
    print(limits)
    config = ModelConfig.from_gguf(GGUFFile(resolve_model("demo")))
    roofline = Roofline(config, limits.bfloat16_flops, limits.read_bytes_per_s)
    with Session(Installation(peers.expanduser()), scale) as session:
        for comparison in comparisons:
            workload = comparison.workload
            print(f"{workload.name}  {workload.title}")
            conditions = dict(machine)
            if isinstance(workload, OfflineWorkload):
                limit = round(roofline.output_tokens_per_s(workload), 1)
                conditions["bf16_roofline_output_tokens_per_s"] = limit
                print(f"  at most {limit} output tok/s in bf16")
            started_s = time.monotonic()
            runs = session.run(comparison)
            conditions["logprob_difference"] = dict(session.differences)
            measured = replace(comparison, engines=tuple(runs))
            rows = rows_of(measured, runs, conditions)
            for name, row in rows.items():
                print(f"  {name:<40}{row['ratio']:6.2f} ×")
            merge(output_json, rows)
            print(f"  {(time.monotonic() - started_s) / 60:.1f} min")
    return 1 if session.failures else 0


def choose(
    workloads: list[str] | None, engines: list[str] | None, scale: float, rounds: int | None
) -> list[Comparison]:
    """Return the table, or what of it or beyond it is named; exits on a name there is not."""
    unknown = set(workloads or ()) - set(WORKLOADS)
    if unknown:
        sys.exit(f"no workload {', '.join(sorted(unknown))}; there are {', '.join(WORKLOADS)}")
    known = {each.workload.name: each for each in TABLE}
    chosen = []
    for name in workloads or known:
        comparison = known.get(name) or Comparison(WORKLOADS[name], *_BEYOND_THE_TABLE)
        chosen.append(
            Comparison(
                comparison.workload.scaled(scale),
                tuple(engines or comparison.engines),
                rounds or comparison.rounds,
            )
        )
    return chosen


def print_plan(comparisons: list[Comparison]) -> None:
    total_s = start_s(comparisons)
    print(f"{total_s / 60:5.1f} min  starting and warming engines")
    for each in comparisons:
        seconds = 2 * each.rounds * sum(turn_s(each.workload, name) for name in each.engines)
        total_s += seconds
        names = " ".join(each.engines)
        print(f"{seconds / 60:5.1f} min  {each.workload.name:<4} {each.workload.title}: {names}")
    print(f"{total_s / 60:5.1f} min  together")


if __name__ == "__main__":
    # Engines that are paused would outlive a process that just ends.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    app = cyclopts.App(default_command=main, help=__doc__)
    sys.exit(app())
