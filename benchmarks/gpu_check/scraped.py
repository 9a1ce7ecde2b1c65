"""What the processes of a server say of themselves to Prometheus."""

import time
import urllib.request
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

from .report import Row

_STEP_PARTS = ("schedule", "encode", "send", "decode", "update", "deliver")
_DEVICE_PARTS = ("copy", "forward", "sample")
_SCRAPE_TIMEOUT_S = 10.0
_QUIET_S, _BUSY_SHARE = 0.3, 0.2
# Metrics of any process beside its own.
_CPU_S = "process_cpu_seconds_total"


@dataclass(frozen=True, slots=True)
class Scrape:
    """Sums and counts at one moment.

    Attributes:
        taken_s: on time.perf_counter.
        values: by the process, the name of the metric, and the part of the step if it has one.
    """

    taken_s: float
    values: Mapping[tuple[str, str, str], float]

    @staticmethod
    def of(ports: Mapping[str, int]) -> "Scrape":
        """Ask the processes, by name, on their ports."""
        taken_s = time.perf_counter()
        values = {
            (process, name, part): value
            for process, port in ports.items()
            for name, part, value in _samples(port)
        }
        return Scrape(taken_s, values)


def _samples(port: int) -> Iterable[tuple[str, str, float]]:
    url = f"http://127.0.0.1:{port}/metrics"
    with urllib.request.urlopen(url, timeout=_SCRAPE_TIMEOUT_S) as response:
        text = response.read().decode()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if "le" not in sample.labels:
                yield sample.name, sample.labels.get("part", ""), sample.value


def wait_until_quiet(process: str, port: int) -> None:
    """Return when a process has nothing to do: a worker records graphs while nobody asks."""
    key = (process, _CPU_S, "")
    before = Scrape.of({process: port})
    is_busy = True
    while is_busy:
        time.sleep(_QUIET_S)
        after = Scrape.of({process: port})
        used_s = after.values[key] - before.values[key]
        is_busy = used_s > _BUSY_SHARE * (after.taken_s - before.taken_s)
        before = after


def step_costs(before: Scrape, after: Scrape) -> Row:
    """Return what lies between two moments: how long the GPU was idle, and the CPU time of a step.

    Of a scheduler's thread by parts, and all that the other processes that were asked took: a
    router's is detokenizing, and handing on.
    """

    def grown(process: str, name: str, part: str = "") -> float:
        key = (process, name, part)
        return after.values.get(key, 0.0) - before.values.get(key, 0.0)

    num_steps = grown("scheduler", "octavo_scheduler_steps_total")
    if not num_steps:
        return {"num_steps": 0}
    device_s = sum(
        grown("worker", "octavo_worker_step_seconds_sum", part) for part in _DEVICE_PARTS
    )
    cpu_s = {
        part: grown("scheduler", "octavo_scheduler_step_seconds_sum", part) for part in _STEP_PARTS
    }
    others = {process for process, name, _ in after.values if name == _CPU_S} - {"scheduler"}
    cpu_s |= {process: grown(process, _CPU_S) for process in sorted(others)}
    return {
        "num_steps": int(num_steps),
        "gpu_idle_percent": round(
            100 * max(0.0, 1 - device_s / (after.taken_s - before.taken_s)), 2
        ),
        "cpu_us_per_step": {
            part: round(1e6 * seconds / num_steps, 1) for part, seconds in cpu_s.items()
        },
    }
