"""A workload on a scheduler and a worker that are processes, as they serve; no router, no REST.

    python -m benchmarks.gpu_check.remote DRIVE         (engine.py starts it, with a Drive as JSON)

What a scheduler in another process costs is seen beside the same workload in one process.
"""

import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import grpc

from benchmarks.octavo_server import free_ports
from octavo.grpc_server import CHANNEL_OPTIONS
from octavo.v1 import common_pb2, scheduling_pb2, scheduling_pb2_grpc
from octavo.version import PROTOCOL_VERSION

from .child import write_row
from .engine import Drive
from .report import Row, spread_row
from .scraped import Scrape, step_costs, wait_until_quiet
from .workloads import MAX_NUM_BATCHED_TOKENS, MAX_NUM_SEQS, Case, Workload

_ROUTER_ID = bytes(16)
_STOP_TIMEOUT_S = 30


def main() -> int:
    drive = Drive.from_json(sys.argv[1])
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(_run(drive.case, drive.directory, Path(directory)))
    return 0


async def _run(case: Case, model: str, directory: Path) -> None:
    address, endpoint = f"unix:{directory}/grpc.sock", f"ipc://{directory}/worker.sock"
    ports = dict(zip(("scheduler", "worker"), free_ports(2), strict=True))
    limits: dict[str, object] = {
        "worker-endpoint": endpoint,
        "max-num-seqs": MAX_NUM_SEQS,
        "max-num-batched-tokens": MAX_NUM_BATCHED_TOKENS,
        "max-model-len": max(workload.longest for workload in case.workloads),
    }
    scheduler = limits | {"listen": address, "served-model-name": case.model.name}
    scheduler |= {"enable-prefix-caching": False, "metrics-port": ports["scheduler"]}
    worker = limits | {"model": model, "load-format": "dummy", "dtype": "bfloat16"}
    worker |= {"scheduler-endpoint": worker.pop("worker-endpoint"), "metrics-port": ports["worker"]}
    worker |= {name.replace("_", "-"): value for name, value in case.options.items()}
    started_s = time.perf_counter()
    with _running("scheduler", scheduler), _running("worker", worker):
        async with grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS) as channel:
            await channel.channel_ready()
            client = _Client(scheduling_pb2_grpc.SchedulingStub(channel), case.model.vocab_size)
            await client.attach()
            start_s = time.perf_counter() - started_s
            for workload in case.workloads:
                await client.run(workload.beginning(MAX_NUM_SEQS), {})
                await asyncio.to_thread(wait_until_quiet, "worker", ports["worker"])
                row = await client.run(workload, ports)
                write_row({"model": case.model.name} | row | {"start_s": round(start_s, 1)})


@contextmanager
def _running(process: str, flags: Mapping[str, object]) -> Iterator[None]:
    command = [sys.executable, "-P", "-m", "octavo.cli", process, "--log-level", "warning"]
    for name, value in flags.items():
        if isinstance(value, bool):
            command.append(f"--{name}" if value else f"--no-{name}")
        else:
            command += [f"--{name}", str(value)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as running:
        try:
            yield
        finally:
            running.kill()
            running.wait(_STOP_TIMEOUT_S)


@dataclass(slots=True)
class _Client:
    """The scheduler's only router: it has requests, and no text."""

    stub: Any
    vocab_size: int
    call: Any = None
    num_sent: int = 0

    async def attach(self) -> None:
        """Return when the scheduler has its worker."""
        self.call = self.stub.Attach()
        hello = scheduling_pb2.Hello(
            router_id=_ROUTER_ID, incarnation=1, protocol_version=PROTOCOL_VERSION
        )
        await self.call.write(scheduling_pb2.AttachRequest(hello=hello))
        await self.call.read()

    async def run(self, workload: Workload, ports: Mapping[str, int]) -> Row:
        """Run a workload to its end; steps are timed while all of its requests decode.

        Args:
            ports: those of metrics; empty where nobody wants to know.
        """
        requests = self._requests(workload)
        tokens: dict[bytes, list[int]] = {each.request_key: [] for each in requests}
        missing, num_left = set(tokens), len(tokens)
        arrivals_s: list[float] = []
        before = Scrape.of(ports)
        started_s = time.perf_counter()
        submitted = asyncio.gather(*(self.stub.Submit(request) for request in requests))
        while num_left:
            outputs = (await self.call.read()).outputs
            _add(outputs, tokens)
            num_left -= len(outputs.finished)
            missing.difference_update(outputs.request_key)
            if not missing and outputs.token_ids:
                arrivals_s.append(time.perf_counter())
        ended_s = time.perf_counter()
        after = Scrape.of(ports)
        await submitted
        self._check(workload, list(tokens.values()))
        steps_s = [later - earlier for earlier, later in pairwise(arrivals_s)]
        return {
            "workload": workload.name,
            "output_tok_s": round(workload.num_output_tokens / (ended_s - started_s), 1),
            "duration_s": round(ended_s - started_s, 3),
            **spread_row("decode_ms", steps_s),
            **step_costs(before, after),
        }

    def _requests(self, workload: Workload) -> list[scheduling_pb2.SubmitRequest]:
        first, self.num_sent = self.num_sent + 1, self.num_sent + len(workload.lengths)
        return [
            scheduling_pb2.SubmitRequest(
                request_key=number.to_bytes(16),
                router_id=_ROUTER_ID,
                prompt_token_ids=prompt,
                n=1,
                sampling=common_pb2.SamplingParams(temperature=0),
                seeds=[0],
                max_tokens=num_output,
            )
            for number, prompt, (_, num_output) in zip(
                range(first, self.num_sent + 1),
                workload.prompts(self.vocab_size),
                workload.lengths,
                strict=True,
            )
        ]

    def _check(self, workload: Workload, outputs: Sequence[Sequence[int]]) -> None:
        lengths = [len(output) for output in outputs]
        assert lengths == [num_output for _, num_output in workload.lengths], lengths


def _add(outputs: scheduling_pb2.StepOutputs, tokens: Mapping[bytes, list[int]]) -> None:
    """Add the tokens that a step brought."""
    token_ids = iter(outputs.token_ids)
    for key, count in zip(outputs.request_key, outputs.num_tokens, strict=True):
        tokens[key].extend(next(token_ids) for _ in range(count))


if __name__ == "__main__":
    sys.exit(main())
