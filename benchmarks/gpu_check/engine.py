"""The engine on one model after another, each in a process of its own, and what parts are worth."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from .child import child_rows, time_shares
from .models import ModelShape, write_model
from .report import Row
from .workloads import ABLATION, Workload

# Each is an engine that lacks one thing; the first lacks nothing.
ABLATIONS: Sequence[tuple[str, dict[str, Any]]] = (
    ("all of it", {}),
    ("no CUDA graphs", {"enforce_eager": True}),
    ("no overlap", {"async_scheduling": False}),
)


@dataclass(frozen=True, slots=True)
class Drive:
    """One process: a model, options of LLM, and the workloads that it runs.

    Attributes:
        ceilings: bytes and bfloat16 operations of the GPU a second, for the floor.
        watches_device: tell how long the GPU was idle, as its own records have it.
    """

    model: ModelShape
    directory: str
    options: dict[str, Any]
    workloads: Sequence[Workload]
    ceilings: tuple[float, float]
    watches_device: bool = False

    def rows(self, module: str, limit_s: float) -> Iterator[Row]:
        """Yield what a module of this folder measures with it."""
        return child_rows({"model": self.model.name}, module, [self.to_json()], limit_s)

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> "Drive":
        fields = json.loads(text)
        return Drive(
            model=ModelShape(**fields.pop("model")),
            workloads=[Workload(**each) for each in fields.pop("workloads")],
            ceilings=tuple(fields.pop("ceilings")),
            **fields,
        )


def engine_rows(
    models: Sequence[tuple[ModelShape, Sequence[Workload]]],
    ceilings: tuple[float, float],
    limit_s: float,
    options: dict[str, Any] | None = None,
) -> Iterator[Row]:
    """Measure workloads on models; each model has its share of the time."""
    with TemporaryDirectory() as folder:
        for (model, workloads), share_s in zip(
            models, time_shares(limit_s, len(models)), strict=True
        ):
            directory = write_model(model, Path(folder) / model.name)
            drive = Drive(model, str(directory), options or {}, workloads, ceilings)
            yield from drive.rows("drive", share_s)


def ablation_rows(
    ceilings: tuple[float, float],
    limit_s: float,
    measured: tuple[ModelShape, Workload] = ABLATION,
) -> Iterator[Row]:
    """Measure one workload with all that the engine has, and without one thing after another."""
    model, workload = measured
    shares = time_shares(limit_s, len(ABLATIONS))
    with TemporaryDirectory() as folder:
        directory = str(write_model(model, Path(folder)))
        for (name, options), share_s in zip(ABLATIONS, shares, strict=True):
            drive = Drive(model, directory, options, [workload], ceilings, watches_device=True)
            for row in drive.rows("drive", share_s):
                yield {"engine": name} | row


def peer_rows(
    ceilings: tuple[float, float],
    limit_s: float,
    measured: tuple[ModelShape, Workload] = ABLATION,
) -> Iterator[Row]:
    """Measure the same workload with the continuous batching of transformers."""
    model, workload = measured
    with TemporaryDirectory() as folder:
        directory = str(write_model(model, Path(folder)))
        drive = Drive(model, directory, {}, [workload], ceilings)
        for row in drive.rows("peer", limit_s):
            yield {"engine": "transformers generate_batch"} | row
