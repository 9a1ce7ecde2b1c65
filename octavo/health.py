"""`octavo health`: asks a process whether it is ready; the exit status is for health checks.

Health checks start it every few seconds, so each of the two ways imports only what it needs.
"""

import sys
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number


def main(
    address: str = "http://127.0.0.1:8000/ready",
    *,
    timeout_s: Annotated[float, Parameter(validator=Number(gt=0))] = 2.0,
) -> int:
    """Ask a process whether it is ready: exit status 0 if it is, 1 if not.

    Parameters
    ----------
    address:
        http://HOST:PORT/PATH of a gateway's /ready, or of a worker's /metrics, which are there
        once its model is loaded; HOST:PORT or unix:/PATH of the gRPC of a router or scheduler.
    timeout_s:
        Seconds to wait for the answer.
    """
    ask = _ask_http if address.startswith("http://") else _ask_grpc
    problem = ask(address, timeout_s)
    if problem is not None:
        print(f"octavo: {address} is not ready: {problem}", file=sys.stderr)
        return 1
    print("ready")
    return 0


def _ask_http(url: str, timeout_s: float) -> str | None:
    """Return what is wrong, or None."""
    from http.client import HTTPException
    from urllib.error import HTTPError
    from urllib.request import ProxyHandler, build_opener

    # What we ask is near; a proxy would only say that it cannot reach it.
    opener = build_opener(ProxyHandler({}))
    try:
        with opener.open(url, timeout=timeout_s):
            return None
    except HTTPError as error:
        error.close()
        return f"status {error.code}"
    except (OSError, HTTPException, ValueError) as error:
        return str(getattr(error, "reason", error)) or type(error).__name__


def _ask_grpc(address: str, timeout_s: float) -> str | None:
    """Return what is wrong, or None."""
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        request = health_pb2.HealthCheckRequest()
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=timeout_s)
        except grpc.RpcError as error:
            return f"{error.code().name}: {error.details()}"
    if answer.status == health_pb2.HealthCheckResponse.SERVING:
        return None
    return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))
