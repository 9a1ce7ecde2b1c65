"""What we want of one H200, beside what a run has found: met, missed, or not measured."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .attention_cases import BALANCED, UNBALANCED, decode_shape, prefill_shape
from .models import LLAMA_8B, LLAMA_8B_FP8, QWEN3_600M
from .probes import COPY
from .workloads import ABLATION, Workload, nano_vllm, same, sharegpt

Tables = Mapping[str, Sequence[Mapping[str, Any]]]

IN_PROCESS, OVER_ZEROMQ = "all of it", "scheduler over ZeroMQ"
AT_ONCE = "all at once"


@dataclass(frozen=True, slots=True)
class Bar:
    """A figure and its goal.

    Attributes:
        is_most: the goal is the most that it may be; else the least.
        measured: finds it in the tables; None where it is not there, or not all of it.
    """

    name: str
    goal: float
    unit: str
    is_most: bool
    measured: Callable[[Tables], float | None]

    def row(self, tables: Tables) -> dict[str, Any]:
        """Return the bar with the figure, its per cent of the goal (100 and more is met)."""
        told = {"bar": self.name, "goal": f"{'≤' if self.is_most else '≥'} {self.goal:g}"}
        value = self.measured(tables)
        if value is None:
            return told | {"unit": self.unit, "outcome": "not measured"}
        has_met = value <= self.goal if self.is_most else value >= self.goal
        of, by = (self.goal, value) if self.is_most else (value, self.goal)
        return told | {
            "unit": self.unit,
            "measured": round(value, 3),
            "percent": round(100 * of / by) if by else None,
            "outcome": "met" if has_met else "missed",
        }


def bar_rows(tables: Tables) -> list[dict[str, Any]]:
    return [bar.row(tables) for bar in BARS]


def _figure(table: str, key: str, **where: object) -> Callable[[Tables], float | None]:
    """Return what finds a number in the first row with these values that is not wrong."""

    def find(tables: Tables) -> float | None:
        for row in tables.get(table, ()):
            is_right = row.get("is_right", True) and "error" not in row
            if is_right and where.items() <= row.items() and key in row:
                return float(row[key])
        return None

    return find


def _ratio(
    of: Callable[[Tables], float | None], by: Callable[[Tables], float | None]
) -> Callable[[Tables], float | None]:
    def find(tables: Tables) -> float | None:
        above, below = of(tables), by(tables)
        return above / below if above is not None and below else None

    return find


def _sum(table: str, key: str, least_rows: int) -> Callable[[Tables], float | None]:
    """Return what adds up a column; None unless so many rows have it, and none went wrong."""

    def find(tables: Tables) -> float | None:
        rows = tables.get(table, ())
        found = [row[key] for row in rows if key in row]
        is_whole = len(found) >= least_rows and not any("error" in row for row in rows)
        return float(sum(found)) if is_whole else None

    return find


def _engine(model: str, workload: Workload, key: str) -> Callable[[Tables], float | None]:
    return _figure("engine", key, model=model, workload=workload.name)


def _decode(groups: Sequence[tuple[int, int]], key: str) -> Callable[[Tables], float | None]:
    shape = decode_shape(LLAMA_8B, groups, block_size=16)
    return _figure("kernels", key, kernel="decode_attention", shape=shape)


def _bars() -> Iterator[Bar]:
    llama, qwen = LLAMA_8B.name, QWEN3_600M.name
    copied = _figure("probes", "value", name=COPY)
    percent_of_copy = _ratio(_decode([(32, 4096)], "gb_s"), copied)
    prefill = _figure(
        "kernels",
        "tflop_s",
        kernel="prefill_attention",
        shape=prefill_shape(LLAMA_8B, [(8192, 8192)], block_size=16),
    )
    nano = _engine(qwen, nano_vllm(), "output_tok_s")
    alone = _engine(llama, same(1, 512, 256), "decode_ms_p50")
    in_process = _figure("ablations", "output_tok_s", engine=IN_PROCESS)
    peer = _figure("peer", "output_tok_s", workload=ABLATION.workloads[0].name)
    idle = _figure("ablations", "gpu_idle_percent", engine=OVER_ZEROMQ)
    served = _figure("serving", "output_tok_s", requests_s=AT_ONCE)
    offline = _engine(llama, sharegpt(1000), "output_tok_s")
    uneven = _ratio(_decode(UNBALANCED, "us"), _decode(BALANCED, "us"))

    # What a first run should reach.
    yield Bar("tests on the GPU that fail", 0, "", True, _sum("tests", "failed", 1))
    changed = _sum("ablations", "changed", 2)
    yield Bar("outputs that graphs or overlap change", 0, "", True, changed)
    yield Bar("paged decode 32 x 4K, of copying", 0.75, "", False, percent_of_copy)
    yield Bar("prefill 8K", 350, "TFLOP/s", False, prefill)
    yield Bar("0.6B, nano-vllm's benchmark", 18_000, "tok/s", False, nano)
    yield Bar(
        "0.6B, beside transformers' generate_batch", 5, "times", False, _ratio(in_process, peer)
    )
    yield Bar("8B alone, context of 512", 5, "ms a token", True, alone)
    yield Bar("GPU idle between steps, over ZeroMQ", 5, "%", True, idle)
    # What it should be in the end.
    yield Bar("8B alone, context of 512", 3.9, "ms a token", True, alone)
    yield Bar(
        "8B, 64 rows, context of 1K",
        6.2,
        "ms a step",
        True,
        _engine(llama, same(64, 1024, 256), "decode_ms_p50"),
    )
    for model, goal in ((LLAMA_8B, 11_000), (LLAMA_8B_FP8, 17_800)):
        told = model.name.replace("Llama-3.1-8B shapes", "8B")
        thousands = _engine(model.name, same(128, 1000, 1000), "output_tok_s")
        yield Bar(f"{told}, 128 x 1000/1000", goal, "tok/s", False, thousands)
    yield Bar("8B, ShareGPT's lengths through REST", 14_000, "tok/s", False, served)
    yield Bar("8B, the same beside the engine alone", 0.95, "times", False, _ratio(served, offline))
    yield Bar("0.6B, nano-vllm's benchmark", 27_000, "tok/s", False, nano)
    longest = _engine(llama, same(32, 128, 2048), "percent_of_floor")
    # 72 s for 32 outputs of 8,192 tokens, whose floor is 61.3 s.
    yield Bar("8B, 32 long outputs", 85, "% of floor", False, longest)
    yield Bar("paged decode 32 x 4K", 140, "µs", True, _decode([(32, 4096)], "us"))
    yield Bar("decode 1 x 64K + 15 x 4K, beside even", 1.15, "times", True, uneven)
    yield Bar("prefill 8K", 480, "TFLOP/s", False, prefill)
    yield Bar("GPU idle between steps, over ZeroMQ", 1, "%", True, idle)
    step_ms = [
        _figure("ablations", "decode_ms_p50", engine=engine) for engine in (OVER_ZEROMQ, IN_PROCESS)
    ]
    yield Bar("0.6B, a step over ZeroMQ beside in-process", 1.02, "times", True, _ratio(*step_ms))
    single = _engine(qwen, same(1, 128, 512), "decode_ms_p50")
    yield Bar("0.6B alone", 0.9, "ms a token", True, single)


BARS = tuple(_bars())
