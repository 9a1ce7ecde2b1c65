"""Tells of connections that fail before the first message; libzmq by itself is silent on them."""

from collections.abc import Iterator
from dataclasses import dataclass

import zmq
from zmq.utils.monitor import parse_monitor_message

BROKEN = zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
REFUSED = zmq.EVENT_HANDSHAKE_FAILED_AUTH

_REASONS: dict[int, str] = {
    zmq.PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH: "one end uses CURVE keys and the other does not",
    zmq.PROTOCOL_ERROR_ZMTP_CRYPTOGRAPHIC: "the peer knows this end by another public key",
}


@dataclass(frozen=True, slots=True)
class HandshakeFailure:
    """One connection that did not come about."""

    reason: str
    is_final: bool
    """Whether a socket that connects has given up; else it tries again."""


class HandshakeMonitor:
    """Belongs to the thread of the socket that it watches.

    Attributes:
        socket: readable when there are failures.
    """

    def __init__(self, watched: "zmq.Socket[bytes]", events: int) -> None:
        """`events`: BROKEN, REFUSED or both."""
        self._watched = watched
        self.socket: zmq.Socket[bytes] = watched.get_monitor_socket(events)

    def failures(self) -> Iterator[HandshakeFailure]:
        """Yield those since the last call."""
        while True:
            try:
                parts = self.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            event = parse_monitor_message(parts)
            yield _failure(int(event["event"]), int(event["value"]))

    def close(self) -> None:
        """Stop watching; call it before the socket itself is closed."""
        self._watched.disable_monitor()
        self.socket.close()


def _failure(event: int, value: int) -> HandshakeFailure:
    if event == REFUSED:
        reason = "the key of this end is not in --curve-peer-keys-file of the other"
        return HandshakeFailure(reason, is_final=True)
    if event == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL:
        reason = _REASONS.get(value, f"ZMTP protocol error {value:#x}")
        return HandshakeFailure(reason, is_final=True)
    return HandshakeFailure(
        "the peer ended it; do both ends have each other's key?", is_final=False
    )
