"""What a process shows to Prometheus: a registry of its own, served by a thread of its own."""

from wsgiref.simple_server import WSGIServer

from prometheus_client import (
    CollectorRegistry,
    ProcessCollector,
    disable_created_metrics,
    start_http_server,
)

from .startup import StartupError

# Half as many samples again, which no dashboard reads.
disable_created_metrics()  # type: ignore[no-untyped-call]


def process_registry() -> CollectorRegistry:
    """Return a registry that has the process's CPU time, memory and open files already."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    return registry


def serve_metrics(registry: CollectorRegistry, host: str, port: int) -> WSGIServer:
    """Answer scrapes over HTTP; raises StartupError."""
    try:
        server, _ = start_http_server(port, addr=host, registry=registry)
    except (OSError, OverflowError) as error:
        reason = error.strerror if isinstance(error, OSError) else "ports are 1 to 65535"
        raise StartupError(
            f"--metrics-port {port} of {host}: {reason}; choose another port, or 0 for none"
        ) from error
    return server
