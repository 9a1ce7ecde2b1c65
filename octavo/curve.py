"""CURVE, ZeroMQ's encryption by public keys: keys in files, and the sockets that use them."""

import re
from dataclasses import dataclass, field
from pathlib import Path

import zmq

from .startup import StartupError

# Z85: 32 bytes as 40 characters.
_KEY = re.compile(rb"[0-9A-Za-z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}")

ZAP_DOMAIN = b"octavo"


@dataclass(frozen=True, slots=True)
class CurveKeys:
    """What a process proves who it is with, and whom it talks to. Keys are in Z85."""

    secret: bytes = field(repr=False)
    peers: frozenset[bytes]
    """Public keys."""

    def guard_listener(self, socket: "zmq.Socket[bytes]") -> None:
        """Let a socket that binds talk CURVE only. Who may connect, an authenticator must say."""
        socket.setsockopt(zmq.CURVE_SERVER, 1)
        socket.setsockopt(zmq.CURVE_SECRETKEY, self.secret)
        # Without these two libzmq lets everybody in while there is no authenticator.
        socket.setsockopt(zmq.ZAP_DOMAIN, ZAP_DOMAIN)
        socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)

    def guard_caller(self, socket: "zmq.Socket[bytes]") -> None:
        """Let a socket that connects talk to the one peer only."""
        (peer,) = self.peers
        socket.setsockopt(zmq.CURVE_SERVERKEY, peer)
        socket.setsockopt(zmq.CURVE_SECRETKEY, self.secret)
        socket.setsockopt(zmq.CURVE_PUBLICKEY, zmq.curve_public(self.secret))


def new_key_pair() -> tuple[bytes, bytes]:
    """Return a public key and its secret."""
    return zmq.curve_keypair()


def read_keys(flag: str, path: Path) -> list[bytes]:
    """Return the keys in a file, one a line; raises StartupError, which names the flag."""
    try:
        lines = path.read_bytes().split()
    except OSError as error:
        raise StartupError(f"{flag} {path}: {error.strerror}.") from error
    for number, line in enumerate(lines, start=1):
        # What stands there may be a secret: it is not shown.
        if not _KEY.fullmatch(line):
            raise StartupError(
                f"{flag} {path}: key {number} is not 40 characters of Z85;"
                " `octavo keys DIR` makes keys."
            )
    if not lines:
        raise StartupError(f"{flag} {path}: the file holds no key; `octavo keys DIR` makes keys.")
    return lines
