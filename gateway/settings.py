"""The gateway's flags."""

from dataclasses import dataclass

from octavo.flag_types import ApiKeys, PortOrZero, Seconds
from octavo.settings import ProcessSettings


@dataclass(frozen=True, kw_only=True)
class GatewaySettings(ProcessSettings):
    """Where the gateway listens, and which router it calls."""

    host: str = "127.0.0.1"
    """Address that the REST API listens on."""
    port: PortOrZero = 8000
    """Port that the REST API listens on; 0 takes a free one."""
    router: str = "127.0.0.1:50051"
    """gRPC address of the router: HOST:PORT or unix:/PATH."""
    api_key: ApiKeys = ()
    """Key that clients have to send; may be given several times. None: the API is open."""
    drain_timeout_s: Seconds = 30.0
    """Seconds that running requests may go on after SIGTERM."""
