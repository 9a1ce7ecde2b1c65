"""Octavo beside vLLM, llama.cpp and transformers, in turns, on this machine.

    python -m benchmarks.peers.run [--plan] [--workloads W1 W7] [--engines octavo:int8 vllm:bf16]

Each comparison goes A B B A (of more engines, A B C C B A), all warm, the others paused, with the
same prompts in the same pass; the median of the passes' ratios counts. README.md says how to get
the peers. Without --workloads it is the table of the bars.
"""

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import cyclopts
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

_MOST_LOAD = 0.5

Names = Annotated[list[str] | None, Parameter(consume_multiple=True)]


def main(
    *,
    workloads: Names = None,
    engines: Names = None,
    scale: float = 1.0,
    repeats: int = 3,
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
        repeats: rounds of A B B A.
        peers: where the peers are installed.
        plan: print how many minutes it takes, and do nothing.
        force: measure on a machine that is busy.
        output_json: file for the results, which keeps what is not measured now.
    """
    comparisons = choose(workloads, engines, scale)
    if plan:
        print_plan(comparisons, repeats)
        return 0
    load = os.getloadavg()[0]
    if load > _MOST_LOAD and not force:
        print(f"load average {load:.2f} is above {_MOST_LOAD}: wait, or --force", file=sys.stderr)
        return 1
    machine = describe_machine(limits := measure_limits())
    print(limits, f", load average {load:.2f}", sep="")
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
            runs = session.run(comparison, repeats)
            conditions["logprob_difference"] = dict(session.differences)
            measured = replace(comparison, engines=tuple(runs))
            rows = rows_of(measured, runs, conditions)
            for name, row in rows.items():
                print(f"  {name:<40}{row['ratio']:6.2f} ×")
            merge(output_json, rows)
    return 1 if session.failures else 0


def choose(
    workloads: list[str] | None, engines: list[str] | None, scale: float
) -> list[Comparison]:
    """Return the table, or what of it or beyond it is named; exits on a name there is not."""
    unknown = set(workloads or ()) - set(WORKLOADS)
    if unknown:
        sys.exit(f"no workload {', '.join(sorted(unknown))}; there are {', '.join(WORKLOADS)}")
    known = {each.workload.name: each for each in TABLE}
    chosen = []
    for name in workloads or known:
        comparison = known.get(name) or Comparison(WORKLOADS[name], ("octavo:bf16", "vllm:bf16"))
        scaled = comparison.workload.scaled(scale)
        chosen.append(Comparison(scaled, tuple(engines or comparison.engines)))
    return chosen


def print_plan(comparisons: list[Comparison], repeats: int) -> None:
    total_s = start_s(comparisons)
    print(f"{total_s / 60:5.1f} min  starting and warming engines")
    for each in comparisons:
        seconds = 2 * repeats * sum(turn_s(each.workload, name) for name in each.engines)
        total_s += seconds
        names = " ".join(each.engines)
        print(f"{seconds / 60:5.1f} min  {each.workload.name:<4} {each.workload.title}: {names}")
    print(f"{total_s / 60:5.1f} min  together")


if __name__ == "__main__":
    # Engines that are paused would outlive a process that just ends.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    app = cyclopts.App(default_command=main, help=__doc__)
    sys.exit(app())
