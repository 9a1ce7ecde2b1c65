"""octavo.grpc_server over real sockets."""

import asyncio
import tempfile
from collections.abc import Iterator

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from octavo.grpc_server import CHANNEL_OPTIONS, MAX_RECEIVE_BYTES, grpc_server
from tests.end_to_end.cluster import free_port

NUM_CONNECTIONS, NUM_CALLS_EACH = 3, 800


@pytest.fixture
def address() -> Iterator[str]:
    # Not tmp_path: a socket's path may have 107 bytes.
    with tempfile.TemporaryDirectory() as folder:
        yield f"unix:{folder}/server.sock"


async def test_every_call_of_a_burst_is_answered(address: str) -> None:
    """Left to itself gRPC drops some once 1,000 wait to be taken up, and says CANCELLED."""
    options = [*CHANNEL_OPTIONS, ("grpc.use_local_subchannel_pool", 1)]
    async with grpc_server(address, {}, grace_s=0):
        channels = [
            grpc.aio.insecure_channel(address, options=options) for _ in range(NUM_CONNECTIONS)
        ]
        # A handshake that had to wait for the burst, on this very loop, could take too long.
        for channel in channels:
            await channel.channel_ready()
        calls = [
            health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
            for channel in channels
            for _ in range(NUM_CALLS_EACH)
        ]
        answers = await asyncio.gather(*calls)
        assert len(answers) == NUM_CONNECTIONS * NUM_CALLS_EACH
        for channel in channels:
            await channel.close()


@pytest.mark.parametrize("past_limit", [-1, 0, 1])
async def test_bytes_of_a_message(address: str, past_limit: int) -> None:
    # A tag and a length of four bytes come before the text.
    request = health_pb2.HealthCheckRequest(service="x" * (MAX_RECEIVE_BYTES + past_limit - 5))
    assert request.ByteSize() == MAX_RECEIVE_BYTES + past_limit
    async with grpc_server(address, {}, grace_s=0):
        async with grpc.aio.insecure_channel(address) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as refusal:
                await health_pb2_grpc.HealthStub(channel).Check(request)
    code = grpc.StatusCode.RESOURCE_EXHAUSTED if past_limit > 0 else grpc.StatusCode.NOT_FOUND
    assert refusal.value.code() == code


async def test_our_processes_do_not_call_one_another_through_a_proxy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("no_proxy", "NO_PROXY", "no_grpc_proxy"):
        monkeypatch.delenv(name, raising=False)
    # Nobody listens there.
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    address = f"127.0.0.1:{free_port()}"
    async with grpc_server(address, {}, grace_s=0):
        async with grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=30)
    assert answer.status == health_pb2.HealthCheckResponse.NOT_SERVING
