"""Clients that vanish: a process that opens many streams at once and drops some of them half-way.

    python impatient_clients.py BASE_URL GRPC_ADDRESS MODEL NUM_STREAMS SEED

Half of the streams go through REST, half through gRPC. A third of the requests is dropped at a
random point: the socket is closed, or the rpc is cancelled. Prints a line for each stream that has
ended, and last a JSON object: how many streams were completed and dropped, and every error that was
not the client's own doing.
"""

import asyncio
import json
import random
import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field

import grpc
import httpx

from octavo.v1 import common_pb2, inference_pb2, inference_pb2_grpc

DROPPED_SHARE = 1 / 3
MAX_TOKENS = 32


@dataclass
class Outcome:
    """What happened to this process's streams."""

    completed: int = 0
    dropped: int = 0
    errors: list[str] = field(default_factory=list)


Stream = Callable[[str, str, random.Random, Outcome], Awaitable[None]]


def drop_after(random_source: random.Random) -> int | None:
    """Return the number of events after which to vanish, or None to read to the end."""
    return random_source.randrange(MAX_TOKENS) if random_source.random() < DROPPED_SHARE else None


def prompt(random_source: random.Random) -> str:
    words = [
        random_source.choice(["red", "green", "blue", "one", "two"])
        for _ in range(random_source.randrange(4, 40))
    ]
    return "Count the words: " + " ".join(words)


async def rest_stream(
    base_url: str, model: str, random_source: random.Random, outcome: Outcome
) -> None:
    limit = drop_after(random_source)
    body = {
        "model": model,
        "messages": [{"role": "user", "content": prompt(random_source)}],
        "max_tokens": MAX_TOKENS,
        "ignore_eos": True,
        "stream": True,
    }
    # A client of its own for each stream, so that leaving closes the socket. Nothing is encrypted:
    # it need not read the machine's certificates, 25 ms of computing each time.
    async with httpx.AsyncClient(base_url=base_url, timeout=120, verify=False) as client:
        async with client.stream("POST", "/v1/chat/completions", json=body) as response:
            if response.status_code != 200:
                outcome.errors.append(f"status {response.status_code}: {await response.aread()!r}")
                return
            num_events, last = 0, ""
            async for line in response.aiter_lines():
                if not line:
                    continue
                num_events, last = num_events + 1, line
                if limit is not None and num_events > limit:
                    outcome.dropped += 1
                    return
    if last == "data: [DONE]":
        outcome.completed += 1
    else:
        outcome.errors.append(f"the stream ended with {last!r}")


async def grpc_stream(
    address: str, model: str, random_source: random.Random, outcome: Outcome
) -> None:
    limit = drop_after(random_source)
    request = inference_pb2.GenerateRequest(
        text=prompt(random_source),
        options=inference_pb2.GenerationOptions(
            model=model,
            stop=common_pb2.StopConditions(max_tokens=MAX_TOKENS, ignore_eos=True),
        ),
    )
    async with grpc.aio.insecure_channel(address) as channel:
        call = inference_pb2_grpc.InferenceStub(channel).Generate(request)
        num_events = 0
        async for _ in call:
            num_events += 1
            if limit is not None and num_events > limit:
                call.cancel()
                outcome.dropped += 1
                return
    outcome.completed += 1


async def run_stream(
    stream: Stream, arguments: tuple[str, str], seed: int, outcome: Outcome
) -> None:
    try:
        await stream(*arguments, random.Random(seed), outcome)
    except (httpx.HTTPError, grpc.aio.AioRpcError) as error:
        outcome.errors.append(repr(error))
    print("ended", flush=True)


async def main(base_url: str, grpc_address: str, model: str, num_streams: int, seed: int) -> None:
    outcome = Outcome()
    kinds = [(rest_stream, (base_url, model)), (grpc_stream, (grpc_address, model))]
    await asyncio.gather(
        *(run_stream(*kinds[i % 2], seed * 1000 + i, outcome) for i in range(num_streams))
    )
    print(json.dumps(asdict(outcome)))


if __name__ == "__main__":
    url, grpc_address, model, num_streams, seed = sys.argv[1:]
    asyncio.run(main(url, grpc_address, model, int(num_streams), int(seed)))
