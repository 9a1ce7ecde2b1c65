"""One router, two schedulers with a mock worker each: where requests go, and when one goes away."""

import contextlib
import itertools
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from octavo.v1 import common_pb2, inference_pb2, inference_pb2_grpc
from tests.end_to_end.cluster import START_TIMEOUT_S, STOP_TIMEOUT_S, free_port
from tests.router.tiny_tokenizers import byte_level_tokenizer, write_directory

pytestmark = pytest.mark.slow

BLOCK_SIZE = 16
VOCAB_SIZE = 256
SERVING = health_pb2.HealthCheckResponse.SERVING


class Processes:
    """What has been started, and is ended at the end."""

    def __init__(self) -> None:
        self._started: list[subprocess.Popen[bytes]] = []

    def start(self, *command: str) -> "subprocess.Popen[bytes]":
        self._started.append(subprocess.Popen([sys.executable, "-m", "octavo.cli", *command]))
        return self._started[-1]

    def end(self) -> None:
        for process in reversed(self._started):
            process.kill()
            process.wait()


class Engine:
    """A scheduler and its worker."""

    def __init__(self, processes: Processes, directory: Path, model: Path) -> None:
        # Sockets may be in private directories only.
        directory.mkdir(mode=0o700)
        self.address = f"unix:{directory}/grpc.sock"
        self._processes = processes
        self._endpoint = f"ipc://{directory}/workers.sock"
        self._metrics_port = free_port()
        processes.start(
            *("worker", "--mock", "--scheduler-endpoint", self._endpoint, "--model", str(model)),
            *("--mock-step-s", "0.01", "--mock-vocab-size", str(VOCAB_SIZE)),
            *("--block-size", str(BLOCK_SIZE)),
        )
        self.scheduler = self._start_scheduler()

    def _start_scheduler(self) -> "subprocess.Popen[bytes]":
        return self._processes.start(
            *("scheduler", "--listen", self.address, "--worker-endpoint", self._endpoint),
            *("--served-model-name", "tiny", "--metrics-port", str(self._metrics_port)),
        )

    def revive(self) -> None:
        """Start the scheduler again if it has ended."""
        if self.scheduler.poll() is not None:
            self.scheduler = self._start_scheduler()

    def num_requests(self) -> int:
        """Return how many requests its scheduler has accepted; 0 if it is not there."""
        try:
            with urlopen(f"http://127.0.0.1:{self._metrics_port}/metrics") as answer:
                text = answer.read().decode()
        except OSError:
            return 0
        found = re.search(r"^octavo_scheduler_requests_total (\S+)", text, re.MULTILINE)
        return 0 if found is None else int(float(found[1]))

    def stops_serving(self) -> None:
        """Return when its health says that it takes nothing any more."""
        with grpc.insecure_channel(self.address) as channel:
            for answer in health_pb2_grpc.HealthStub(channel).Watch(
                health_pb2.HealthCheckRequest(), timeout=STOP_TIMEOUT_S
            ):
                if answer.status != SERVING:
                    return


class TwoEngines:
    """The router in front of both."""

    def __init__(self, engines: Sequence[Engine], channel: grpc.Channel) -> None:
        self.engines = engines
        self._inference = inference_pb2_grpc.InferenceStub(channel)
        self._fresh = itertools.count()

    def fresh_prompt(self, num_tokens: int = 2 * BLOCK_SIZE) -> list[int]:
        """Return a prompt that begins like no other."""
        first, second = divmod(next(self._fresh), VOCAB_SIZE)
        return [first, second] * (num_tokens // 2)

    def generate(self, prompt: Sequence[int], max_tokens: int = 2) -> Any:
        """Start a call."""
        options = inference_pb2.GenerationOptions(
            model="tiny",
            stop=common_pb2.StopConditions(max_tokens=max_tokens, ignore_eos=True),
        )
        request = inference_pb2.GenerateRequest(
            options=options, token_ids=common_pb2.TokenIds(ids=prompt)
        )
        return self._inference.Generate(request, timeout=60, wait_for_ready=True)

    def place(self, prompt: Sequence[int]) -> Engine:
        """Return the engine that has answered a prompt."""
        before = [engine.num_requests() for engine in self.engines]
        assert num_tokens(self.generate(prompt)) == 2
        return self._risen(before)

    def stream_on(self, engine: Engine, max_tokens: int) -> Any:
        """Return a call that has begun on an engine."""
        while True:
            before = [each.num_requests() for each in self.engines]
            call = self.generate(self.fresh_prompt(), max_tokens)
            assert next(call).HasField("started")
            if self._risen(before) is engine:
                return call
            call.cancel()

    def become_whole(self) -> None:
        """Start what has ended; returns when both are given requests."""
        for engine in self.engines:
            engine.revive()
        deadline = time.monotonic() + START_TIMEOUT_S
        places: set[Engine] = set()
        while len(places) < len(self.engines):
            assert time.monotonic() < deadline, "an engine is given no requests"
            with contextlib.suppress(grpc.RpcError):
                places.add(self.place(self.fresh_prompt()))

    def _risen(self, before: Sequence[int]) -> Engine:
        risen = [
            engine
            for engine, count in zip(self.engines, before, strict=True)
            if engine.num_requests() > count
        ]
        (engine,) = risen
        return engine


def num_tokens(call: Any) -> int:
    """Return how many tokens a call brings until its end; raises what it fails of."""
    return sum(event.delta.num_tokens for event in call)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoEngines]:
    model = write_directory(tmp_path_factory.mktemp("model"), byte_level_tokenizer())
    processes, port = Processes(), free_port()
    # Not tmp_path: a socket's path may have 107 bytes.
    with tempfile.TemporaryDirectory() as folder:
        try:
            engines = [Engine(processes, Path(folder, str(i)), model) for i in range(2)]
            addresses = [("--scheduler", engine.address) for engine in engines]
            processes.start("router", "--grpc-port", str(port), *itertools.chain(*addresses))
            with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
                yield TwoEngines(engines, channel)
        finally:
            processes.end()


def test_prompts_with_one_prefix_go_to_one_engine(cluster: TwoEngines) -> None:
    cluster.become_whole()
    prefix = cluster.fresh_prompt(8 * BLOCK_SIZE)
    first = cluster.place(prefix)
    for suffix in range(4):
        assert cluster.place([*prefix, suffix]) is first


@pytest.mark.parametrize("index", [0, 1])
def test_when_an_engine_is_killed_the_other_answers(cluster: TwoEngines, index: int) -> None:
    cluster.become_whole()
    killed, other = cluster.engines[index], cluster.engines[1 - index]
    ending, going_on = cluster.stream_on(killed, 1000), cluster.stream_on(other, 100)
    killed.scheduler.kill()
    with pytest.raises(grpc.RpcError) as error:
        num_tokens(ending)
    assert error.value.code() == grpc.StatusCode.UNAVAILABLE
    for _ in range(4):
        assert cluster.place(cluster.fresh_prompt()) is other
    assert num_tokens(going_on) == 100


def test_a_draining_engine_is_left_out_and_ends_its_streams(cluster: TwoEngines) -> None:
    cluster.become_whole()
    drained, other = cluster.engines
    call = cluster.stream_on(drained, 150)
    drained.scheduler.send_signal(signal.SIGTERM)
    drained.stops_serving()
    for _ in range(4):
        assert cluster.place(cluster.fresh_prompt()) is other
    assert num_tokens(call) == 150
    assert drained.scheduler.wait(STOP_TIMEOUT_S) == 0
