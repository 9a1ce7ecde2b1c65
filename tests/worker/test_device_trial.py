"""octavo.worker.device_trial: a real runner of a tiny model, on a device that only counts bytes."""

from collections.abc import Callable
from pathlib import Path

import pytest
from torch import Tensor

from octavo.worker.cuda_graphs import graph_sizes
from octavo.worker.device_runner import DeviceRunner
from octavo.worker.device_trial import try_out
from octavo.worker.dummy_plans import largest_step
from octavo.worker.piecewise_graphs import piece_sizes
from octavo.worker.rows import RowLimits
from tests.worker.runners import BLOCK_SIZE, poisoned_device_runner
from tests.worker.simulated_memory import GIB, SimulatedMemory
from tests.worker.tiny_models import save_tiny_llama

WEIGHTS, GRAPH, PER_TOKEN = 16 * GIB, GIB // 8, 1 << 20


class Recorded:
    def __init__(self, output: Tensor) -> None:
        self.output = output

    def replay(self) -> None: ...


class Recorder:
    """Takes memory for each graph; notes how many rows it has, or tokens."""

    def __init__(self, memory: SimulatedMemory) -> None:
        self._memory = memory
        self.sizes: list[int] = []

    def record(self, work: Callable[[], Tensor]) -> Recorded:
        self._memory.take_for_graph(GRAPH)
        output = work()
        self.sizes.append(len(output))
        return Recorded(output)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiny")
    save_tiny_llama(path)
    return path


class Trial:
    """Makes runners whose passes and caches take memory of the device."""

    def __init__(
        self, path: Path, memory: SimulatedMemory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self._path = path
        self._memory = memory
        self._monkeypatch = monkeypatch
        self.num_tokens: list[int] = []
        self.runners: list[DeviceRunner] = []

    def make(self, limits: RowLimits) -> DeviceRunner:
        runner = poisoned_device_runner(self._path, num_blocks=limits.num_blocks[0])
        hidden_states = runner._forward._decoder.hidden_states

        def counted(step):  # type: ignore[no-untyped-def]
            self.num_tokens.append(len(step.input_ids))
            with self._memory.allocated(len(step.input_ids) * PER_TOKEN):
                return hidden_states(step)

        self._monkeypatch.setattr(runner._forward._decoder, "hidden_states", counted)
        self._memory.allocate(WEIGHTS + runner.kv_cache_bytes)
        self.runners.append(runner)
        return runner


def limits_of(runner: DeviceRunner) -> RowLimits:
    return runner._rows.limits


@pytest.mark.parametrize("has_graphs", [True, False])
def test_the_largest_step_runs_and_leaves_nothing_behind(
    saved: Path, has_graphs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = SimulatedMemory()
    trial = Trial(saved, memory, monkeypatch)
    limits = limits_of(poisoned_device_runner(saved))
    recorder = Recorder(memory) if has_graphs else None
    found = try_out(trial.make, limits, memory, memory.free_bytes(), recorder)

    (runner,) = trial.runners
    num_rows, num_tokens = largest_step(limits)
    assert num_tokens == limits.max_num_batched_tokens
    assert trial.num_tokens[:2] == [num_tokens, num_tokens]
    assert limits_of(runner).num_blocks[0] <= num_rows + num_tokens // BLOCK_SIZE
    assert not runner._rows.is_used.any()
    assert found.weights_bytes == WEIGHTS
    assert found.activations_bytes == num_tokens * PER_TOKEN
    sizes, pieces = graph_sizes(limits.num_rows), piece_sizes(limits.max_num_batched_tokens)
    num_layers = 2
    num_graphs = len(sizes) + num_layers * len(pieces)
    assert found.graphs_bytes == (num_graphs * GRAPH if has_graphs else 0)
    recorded = sizes[:-3:-1] + [size for size in pieces[:-3:-1] for _ in range(num_layers)]
    assert (recorder.sizes if recorder else []) == (recorded if has_graphs else [])
