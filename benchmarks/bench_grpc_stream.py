"""What grpc.aio itself takes of a streamed message: many streams, one small message each a step.

    python -m benchmarks.bench_grpc_stream [--num-streams 64 --num-steps 200 --step-ms 20]

This is what router and gateway do for a token that is not relayed, with all of our code taken away:
no text, no JSON, no HTTP, and messages that are bytes already. Less is not to be had with one
message for each token; with one for each step, it is (docs/decisions/010-relayed-text.md).
"""

import asyncio
import json
import multiprocessing
import time
from collections.abc import Coroutine
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import cyclopts
import grpc

from octavo.grpc_server import CHANNEL_OPTIONS, SERVER_OPTIONS

_METHOD = "/bench.Streams/Open"
# As long as a delta of one token.
_MESSAGE = bytes(24)


def main(
    *,
    num_streams: int = 64,
    num_steps: int = 200,
    step_ms: float = 20.0,
    rounds: int = 3,
    output_json: Path | None = None,
) -> None:
    """Measure the CPU time of a message in the process that sends and in the one that receives.

    Args:
        num_streams: streams over one connection.
        num_steps: messages of each stream.
        step_ms: from one message of a stream to the next.
        rounds: measurements; the least of each counts, for whatever else runs only adds to it.
        output_json: file for the result.
    """
    measured = [measure(num_streams, num_steps, step_ms / 1000) for _ in range(rounds)]
    sender, receiver = (round(min(each), 1) for each in zip(*measured, strict=True))
    print(f"{num_streams} streams, a message every {step_ms:g} ms")
    print(f"  sender    {sender:6.1f} us of CPU a message")
    print(f"  receiver  {receiver:6.1f} us of CPU a message")
    if output_json is None:
        return
    result = {
        "num_streams": num_streams,
        "num_steps": num_steps,
        "step_ms": step_ms,
        "grpcio": grpc.__version__,
        "cpu_us_per_message": {"sender": sender, "receiver": receiver},
    }
    output_json.write_text(json.dumps(result, indent=2) + "\n")


def measure(num_streams: int, num_steps: int, step_s: float) -> tuple[float, float]:
    """Return the microseconds of CPU a message of the sender and of the receiver."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    sender = context.Process(target=send, args=(theirs, num_streams, num_steps, step_s))
    sender.start()
    receiver_s = asyncio.run(receive(ours.recv(), num_streams))
    sender_s = ours.recv()
    sender.join()
    num_messages = num_streams * num_steps
    return 1e6 * sender_s / num_messages, 1e6 * receiver_s / num_messages


def send(pipe: Connection, num_streams: int, num_steps: int, step_s: float) -> None:
    """Run the sending process: tells its port, and at the end its CPU seconds."""
    asyncio.run(_send(pipe, num_streams, num_steps, step_s))


async def _send(pipe: Connection, num_streams: int, num_steps: int, step_s: float) -> None:
    steps: list[asyncio.Queue[bytes | None]] = []
    all_open = asyncio.Event()

    async def open_stream(_: bytes, context: Any) -> None:
        queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        steps.append(queue)
        if len(steps) == num_streams:
            all_open.set()
        while (message := await queue.get()) is not None:
            await context.write(message)

    server = grpc.aio.server(options=SERVER_OPTIONS)
    service, _, method = _METHOD[1:].partition("/")
    handlers = {method: grpc.unary_stream_rpc_method_handler(open_stream)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    pipe.send(server.add_insecure_port("127.0.0.1:0"))
    await server.start()
    await all_open.wait()

    async def send_all() -> None:
        for _ in range(num_steps):
            await asyncio.sleep(step_s)
            for queue in steps:
                queue.put_nowait(_MESSAGE)

    cpu_s = await cpu_of(send_all())
    for queue in steps:
        queue.put_nowait(None)
    await server.stop(grace=10)
    pipe.send(cpu_s)


async def receive(port: int, num_streams: int) -> float:
    """Read all streams to their end; return the CPU seconds it took."""
    address = f"127.0.0.1:{port}"
    async with grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS) as channel:
        open_stream = channel.unary_stream(_METHOD)

        async def read_one() -> None:
            call = open_stream(b"")
            while await call.read() is not grpc.aio.EOF:
                pass

        async def read_all() -> None:
            await asyncio.gather(*(read_one() for _ in range(num_streams)))

        return await cpu_of(read_all())


async def cpu_of(work: Coroutine[Any, Any, None]) -> float:
    """Return the CPU seconds that this process used while the work ran."""
    started_s = time.process_time()
    await work
    return time.process_time() - started_s


if __name__ == "__main__":
    cyclopts.run(main)
