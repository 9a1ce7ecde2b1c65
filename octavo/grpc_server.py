"""A gRPC server as each of our services runs it: limits, keepalive, health, reflection, drain."""

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

MAX_RECEIVE_BYTES = 4 * 1024 * 1024
MAX_SEND_BYTES = 16 * 1024 * 1024
_MAX_PENDING_CALLS = 16_384

SERVER_OPTIONS = [
    ("grpc.max_receive_message_length", MAX_RECEIVE_BYTES),
    ("grpc.max_send_message_length", MAX_SEND_BYTES),
    ("grpc.max_metadata_size", 16 * 1024),
    ("grpc.max_concurrent_streams", 1000),
    # Left to itself gRPC drops calls at random, with a bare CANCELLED, once 1,000 are not taken up
    # yet. A burst is to wait, and what is too much is to be refused with a reason.
    ("grpc.server.max_pending_requests", _MAX_PENDING_CALLS),
    ("grpc.server.max_pending_requests_hard_limit", _MAX_PENDING_CALLS),
    # A frozen peer is noticed only with all three; the last is what bounds it.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # Clients that ping while they wait for a long prefill must not be thrown out for it.
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.so_reuseport", 0),
]

CHANNEL_OPTIONS = [
    ("grpc.max_receive_message_length", MAX_SEND_BYTES),
    ("grpc.max_send_message_length", MAX_RECEIVE_BYTES),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),
    # A peer that restarts is back within a second, not within the two minutes gRPC would wait.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # What our processes call is near; gRPC would ask the proxy of the environment for it.
    ("grpc.enable_http_proxy", 0),
]


class Health:
    """The standard health service of one process: NOT_SERVING until told otherwise."""

    def __init__(self, service_names: tuple[str, ...]) -> None:
        self.servicer = health.aio.HealthServicer()
        self._names = ("", *service_names)

    async def set_serving(self, is_serving: bool) -> None:
        status = health_pb2.HealthCheckResponse.ServingStatus
        for name in self._names:
            await self.servicer.set(name, status.SERVING if is_serving else status.NOT_SERVING)


@contextlib.asynccontextmanager
async def grpc_server(
    address: str,
    services: Mapping[str, Callable[[grpc.aio.Server], None]],
    *,
    grace_s: float,
    interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
    max_concurrent_rpcs: int | None = None,
) -> AsyncIterator[Health]:
    """Serve until the block is left; then refuse new calls and give running ones `grace_s` to end.

    Args:
        address: "host:port" or "unix:/path".
        services: full service name → a function that registers its servicer with the server.
        grace_s: seconds a call may go on once the server is stopping; then it is cancelled.
        interceptors: around every call, the first outermost.
        max_concurrent_rpcs: more are refused with RESOURCE_EXHAUSTED before they are read.
    Raises:
        OSError: the address is taken or cannot be bound; the text names it.
    """
    server = grpc.aio.server(
        options=SERVER_OPTIONS,
        interceptors=interceptors,
        maximum_concurrent_rpcs=max_concurrent_rpcs,
    )
    for register in services.values():
        register(server)
    names = tuple(services)
    process_health = Health(names)
    await process_health.set_serving(False)
    health_pb2_grpc.add_HealthServicer_to_server(process_health.servicer, server)
    reflection.enable_server_reflection(
        (*names, health.SERVICE_NAME, reflection.SERVICE_NAME), server
    )
    try:
        server.add_insecure_port(address)
    except RuntimeError as error:
        raise OSError(f"cannot listen on {address}; is another process using it?") from error
    await server.start()
    try:
        yield process_health
    finally:
        await process_health.set_serving(False)
        await server.stop(grace_s)
