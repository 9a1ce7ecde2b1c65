"""The engines of one run: each started once, warmed, checked, and paused between its turns."""

import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from .agreement import check_agreement
from .client import Client
from .comparisons import OURS, Comparison
from .engines import DrivenEngine, Engine, make_offline
from .installation import Installation
from .measurement import Run, WrongRun, check, turns
from .process_group import EngineFailed
from .servers import make_server
from .workloads import OfflineWorkload, Request, ServedWorkload, Workload

_REFERENCE = "transformers:float32"
_WARM_UP_SEED = -1
_WARM_UP = OfflineWorkload(name="warm-up", num_requests=128, input_len=128, output_len=64)
_SERVED_WARM_UP = ServedWorkload(
    name="warm-up", concurrency=64, num_requests=128, input_len=128, output_len=64
)


class Session:
    """Runs comparisons. What fails is told once and left out; the others go on.

    Attributes:
        failures: engine → why it was left out.
        differences: format of ours → mean difference of its log-probabilities, in nats.
    """

    def __init__(self, peers: Installation, scale: float) -> None:
        """Begin; what warms an engine up is scaled like the rest."""
        self.failures: dict[str, str] = {}
        self.differences: dict[str, float] = {}
        self._peers = peers
        self._scale = scale
        self._directory = tempfile.TemporaryDirectory(prefix="peers-")
        self._client = Client(peers, self._make_directory("client"))
        self._engines: dict[str, Engine] = {}
        self._is_served = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop_all()
        self._directory.cleanup()

    def run(self, comparison: Comparison) -> dict[str, list[Run]]:
        """Return the runs of each engine that did all of its turns right, pass by pass."""
        self._switch(not isinstance(comparison.workload, OfflineWorkload))
        names = [name for name in comparison.engines if self._is_ready(name)]
        runs: dict[str, list[tuple[int, Run]]] = {name: [] for name in names}
        for name, number in turns(names, comparison.rounds):
            if name not in runs:
                continue
            try:
                run = self._take_turn(name, comparison, number)
            except (EngineFailed, WrongRun) as error:
                self._leave_out(f"{comparison.workload.name} {name}", error)
                del runs[name]
                continue
            print(f"  {name:<18}{run.tokens_per_s(comparison.workload):9.1f} tok/s", flush=True)
            runs[name].append((number, run))
        return {name: [run for _, run in sorted(each, key=_pass)] for name, each in runs.items()}

    def _take_turn(self, name: str, comparison: Comparison, number: int) -> Run:
        workload = comparison.workload
        requests = _requests(workload, number)
        run = self._engines[name].run(workload, requests, number)
        check(run, workload, requests, name)
        return run

    def _warm_up(self, name: str) -> None:
        if self._engines[name].warms_itself:
            return
        workload = (_SERVED_WARM_UP if self._is_served else _WARM_UP).scaled(self._scale)
        requests = _requests(workload, _WARM_UP_SEED)
        self._engines[name].run(workload, requests, _WARM_UP_SEED)

    def _switch(self, is_served: bool) -> None:
        """Stop the engines of the other kind: their memory is wanted."""
        if is_served != self._is_served:
            self._stop_all()
        self._is_served = is_served

    def _is_ready(self, name: str) -> bool:
        """Start the engine unless it runs; return whether it can be measured."""
        if name not in self._engines and name not in self.failures:
            try:
                self._start(name)
                self._warm_up(name)
                if name.startswith(f"{OURS}:") and not self._is_served:
                    self._check(name)
            except (EngineFailed, WrongRun) as error:
                self._leave_out(name, error)
                if (engine := self._engines.pop(name, None)) is not None:
                    engine.stop()
        return name in self._engines

    def _start(self, name: str) -> Engine:
        print(f"  starting {name}", flush=True)
        directory = self._make_directory(name.replace(":", "-"))
        if self._is_served:
            engine = make_server(name, self._peers, directory, self._client)
        else:
            engine = make_offline(name, self._peers, directory)
        self._engines[name] = engine
        engine.start()
        return engine

    def _check(self, name: str) -> None:
        reference = self._engines.get(_REFERENCE) or self._start(_REFERENCE)
        ours = self._engines[name]
        assert isinstance(ours, DrivenEngine) and isinstance(reference, DrivenEngine)
        kind = name.partition(":")[2]
        self.differences[kind] = round(check_agreement(kind, ours, reference), 4)
        print(f"  {name} differs from transformers by {self.differences[kind]} nats")

    def _leave_out(self, what: str, error: Exception) -> None:
        print(f"  {what} is left out: {error}", flush=True)
        self.failures[what] = str(error)

    def _stop_all(self) -> None:
        for engine in self._engines.values():
            engine.stop()
        self._engines.clear()
        self._client.stop()

    def _make_directory(self, name: str) -> Path:
        directory = Path(self._directory.name) / name
        directory.mkdir(exist_ok=True)
        return directory


def _requests(workload: Workload, seed: int) -> list[Request]:
    """Return the requests of a pass; the client of servers draws its own."""
    return workload.requests(seed) if isinstance(workload, OfflineWorkload) else []


def _pass(numbered: tuple[int, Run]) -> int:
    return numbered[0]
