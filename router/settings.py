"""The settings of a router process."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from octavo.flag_types import ApiKeys, PortOrZero, Seconds
from octavo.settings import ProcessSettings


@dataclass(frozen=True, kw_only=True)
class RouterSettings(ProcessSettings):
    """Flags of `octavo router`."""

    host: str = "127.0.0.1"
    """Address that the gRPC API listens on."""
    grpc_port: PortOrZero = 50051
    """Port that the gRPC API listens on."""
    scheduler: tuple[str, ...]
    """gRPC address of a scheduler: unix:/path, or host:port; may be given several times."""
    chat_template: Path | None = None
    """File with a chat template to use in place of the model's own."""
    generation_config: Literal["auto", "octavo"] = "auto"
    """Sampling where a request does not say: as the model's authors advise, or neutral."""
    api_key: ApiKeys = ()
    """Key that clients have to send; may be given several times. None: the API is open."""
    drain_timeout_s: Seconds = 30.0
    """Seconds that running requests have to finish after SIGTERM."""
    metrics_host: str = "127.0.0.1"
    """Address that metrics are served on, to everyone who reaches it."""
    metrics_port: PortOrZero = 0
    """Port that Prometheus finds metrics on; 0: none."""
