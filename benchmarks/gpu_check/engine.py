"""The engine on one model after another, each in a process of its own, and what parts are worth."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from .bars import IN_PROCESS, OVER_ZEROMQ
from .child import child_rows, time_shares
from .models import ModelShape, write_model
from .report import Row
from .workloads import ABLATION, Case, Workload

# Name, module that runs it, and options; the first lacks nothing, the others one thing each.
ABLATIONS: Sequence[tuple[str, str, dict[str, Any]]] = (
    (IN_PROCESS, "drive", {}),
    (OVER_ZEROMQ, "remote", {}),
    ("no CUDA graphs", "drive", {"enforce_eager": True}),
    ("no overlap", "drive", {"async_scheduling": False}),
)


@dataclass(frozen=True, slots=True)
class Drive:
    """One process: a model, and what it runs.

    Attributes:
        directory: of the model.
        ceilings: bytes and bfloat16 operations of the GPU a second, for the floor.
    """

    case: Case
    directory: str
    ceilings: tuple[float, float]

    def rows(self, module: str, limit_s: float) -> Iterator[Row]:
        """Yield what a module of this folder measures with it."""
        return child_rows({"model": self.case.model.name}, module, [self.to_json()], limit_s)

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> "Drive":
        fields = json.loads(text)
        case = fields.pop("case")
        return Drive(
            case=Case(
                model=ModelShape(**case.pop("model")),
                workloads=[Workload(**each) for each in case.pop("workloads")],
                **case,
            ),
            ceilings=tuple(fields.pop("ceilings")),
            **fields,
        )


def engine_rows(
    cases: Sequence[Case], ceilings: tuple[float, float], limit_s: float
) -> Iterator[Row]:
    """Measure workloads on models; each model has its share of the time."""
    with TemporaryDirectory() as folder:
        shares = time_shares(limit_s, [case.weight for case in cases])
        for case, share_s in zip(cases, shares, strict=True):
            directory = write_model(case.model, Path(folder) / case.model.name)
            for row in Drive(case, str(directory), ceilings).rows("drive", share_s):
                row.pop("outputs", None)
                yield row


def ablation_rows(
    ceilings: tuple[float, float], limit_s: float, case: Case = ABLATION
) -> Iterator[Row]:
    """Measure one workload with all that the engine has, and without one thing after another.

    Outputs are greedy, and steps the same: an output that is not the first engine's is an error.
    Over ZeroMQ requests come one by one, and steps are others, which rounds otherwise.
    """
    shares = time_shares(limit_s, [1] * len(ABLATIONS))
    expected: list[str] | None = None
    with TemporaryDirectory() as folder:
        directory = str(write_model(case.model, Path(folder)))
        for (name, module, lacking), share_s in zip(ABLATIONS, shares, strict=True):
            lesser = replace(case, options={**case.options, **lacking})
            for row in Drive(lesser, directory, ceilings).rows(module, share_s):
                outputs = row.pop("outputs", None)
                if name == IN_PROCESS:
                    expected = outputs
                elif outputs is not None and expected is not None:
                    pairs = zip(outputs, expected, strict=True)
                    row["changed"] = sum(ours != theirs for ours, theirs in pairs)
                    row["is_right"] = not row["changed"]
                yield {"engine": name} | row


def profile_rows(
    ceilings: tuple[float, float], limit_s: float, case: Case = ABLATION
) -> Iterator[Row]:
    """Tell where the GPU's time goes in the same workload."""
    return _rows("device_records", ceilings, limit_s, case)


def peer_rows(
    ceilings: tuple[float, float], limit_s: float, case: Case = ABLATION
) -> Iterator[Row]:
    """Measure the same workload with the continuous batching of transformers."""
    for row in _rows("peer", ceilings, limit_s, case):
        yield {"engine": "transformers generate_batch"} | row


def _rows(module: str, ceilings: tuple[float, float], limit_s: float, case: Case) -> Iterator[Row]:
    with TemporaryDirectory() as folder:
        directory = str(write_model(case.model, Path(folder)))
        yield from Drive(case, directory, ceilings).rows(module, limit_s)
