"""What benchmarks share that measure the same for several numbers of running rows."""

import argparse
import json
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any


def run(
    name: str,
    description: str | None,
    headings: Sequence[str],
    measure: Callable[[int], Any],
    num_running: Sequence[int],
) -> None:
    """Read the arguments, print a line for each number of rows, and write all as JSON if asked.

    Args:
        name: of the benchmark, in the JSON.
        headings: of the fields that `measure` returns.
        measure: number of running rows → a dataclass of figures.
        num_running: what is measured unless the arguments say otherwise.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--num-running", type=int, nargs="+", default=num_running)
    parser.add_argument("--output-json", type=Path)
    arguments = parser.parse_args()
    print("".join(f"{heading:>12}" for heading in headings))
    rows = []
    for number in arguments.num_running:
        rows.append(asdict(measure(number)))
        print("".join(f"{figure:>12}" for figure in rows[-1].values()), flush=True)
    if arguments.output_json is not None:
        report = {
            "benchmark": name,
            "machine": platform.processor() or platform.machine(),
            "python": platform.python_version(),
            "rows": rows,
        }
        arguments.output_json.write_text(json.dumps(report, indent=2) + "\n")
