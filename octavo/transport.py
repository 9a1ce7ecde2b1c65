"""Which addresses scheduler and workers may meet at, and with which keys."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from .curve import CurveKeys, read_keys
from .settings import ProcessSettings
from .startup import StartupError


@dataclass(frozen=True, kw_only=True)
class TransportSettings(ProcessSettings):
    """Flags of the two ends of the socket between scheduler and workers."""

    curve_secret_key_file: Path | None = None
    """For tcp:// addresses: file with the secret key of this process. `octavo keys` makes it."""
    curve_peer_keys_file: Path | None = None
    """For tcp:// addresses: file with the public keys of those it may talk to, one a line."""
    insecure_transport: Annotated[bool, Parameter(negative=())] = False
    """Take tcp:// addresses without keys: on a private network for tests, where all may listen."""


def curve_keys(
    flag: str, endpoint: str, settings: TransportSettings, *, max_peers: int | None = None
) -> CurveKeys | None:
    """Return the keys that the endpoint calls for; None where it needs none.

    Args:
        flag: the one that gave the endpoint, for errors.
        max_peers: how many peers such a process can have.
    Raises:
        StartupError: the endpoint is none of ours, or endpoint and keys do not go together.
    """
    files = {
        "--curve-secret-key-file": settings.curve_secret_key_file,
        "--curve-peer-keys-file": settings.curve_peer_keys_file,
    }
    given = [name for name, path in files.items() if path is not None]
    if settings.insecure_transport:
        given.append("--insecure-transport")
    if endpoint.startswith("tcp://"):
        keys = _keys_for_tcp(f"{flag} {endpoint}", files, settings.insecure_transport)
        if keys and max_peers and len(keys.peers) > max_peers:
            raise StartupError(
                f"{flag} {endpoint}: --curve-peer-keys-file holds {len(keys.peers)} keys;"
                f" {max_peers} is what this process can have."
            )
        return keys
    if not endpoint.startswith("ipc:///"):
        raise StartupError(f"{flag} {endpoint}: give ipc:///path or tcp://address:port.")
    if given:
        raise StartupError(
            f"{flag} {endpoint}: {given[0]} is for tcp:// addresses; leave it out here."
        )
    return None


def _keys_for_tcp(what: str, files: dict[str, Path | None], is_insecure: bool) -> CurveKeys | None:
    missing = [name for name, path in files.items() if path is None]
    if is_insecure and len(missing) < len(files):
        raise StartupError(
            f"{what}: --insecure-transport and keys exclude one another; leave out one."
        )
    if is_insecure:
        return None
    if missing:
        raise StartupError(
            f"{what}: over TCP the prompts of all users pass. Give {' and '.join(missing)}, which"
            " `octavo keys DIR` makes, or --insecure-transport on a private network for tests."
        )
    secret, peers = (read_keys(name, path) for name, path in files.items() if path is not None)
    if len(secret) != 1:
        raise StartupError(f"{what}: --curve-secret-key-file holds {len(secret)} keys, not one.")
    return CurveKeys(secret[0], frozenset(peers))
