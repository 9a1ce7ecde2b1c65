"""What both ends of a socket between scheduler and worker agree on, beside the messages."""

import time
from collections.abc import Callable

import structlog
import zmq
from google.protobuf.message import Message

from .log_limit import LogLimit

BEAT_S = 0.5
"""Seconds between two heartbeats, each way."""

LOST_AFTER_BEATS = 10
"""A peer that was silent for so many of our own beats is gone. Beats of ours, not seconds: after a
pause of this process, what the peer sent meanwhile is read before it is judged."""

_MAX_FRAME_BYTES = 16 * 1024 * 1024
_MAX_QUEUED_FRAMES = 1000
_LENGTH_DELIMITED = 2


def set_limits(socket: "zmq.Socket[bytes]") -> None:
    """Bound what the socket takes and queues; closing it never waits."""
    socket.setsockopt(zmq.MAXMSGSIZE, _MAX_FRAME_BYTES)
    socket.setsockopt(zmq.RCVHWM, _MAX_QUEUED_FRAMES)
    socket.setsockopt(zmq.SNDHWM, _MAX_QUEUED_FRAMES)
    socket.setsockopt(zmq.LINGER, 0)


def envelope(field_number: int, message: Message) -> bytes:
    """Return a frame that has one field, this message, encoded.

    Making the frame as a message of its own would copy this one into it, which takes three times as
    long as encoding it (protobuf.dev, Encoding: a submessage is a tag, its length, and its bytes).
    """
    body = message.SerializeToString()
    return _varint(field_number << 3 | _LENGTH_DELIMITED) + _varint(len(body)) + body


def _varint(value: int) -> bytes:
    groups = bytearray()
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    groups.append(value)
    return bytes(groups)


class BrokenFrames:
    """Counts frames that are no message of ours, and logs at most one a second of each peer."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.count = 0
        self._limit = LogLimit(clock)
        self._log = structlog.get_logger()

    def add(self, peer: bytes, reason: str) -> None:
        """Count one, from the peer with this socket identity."""
        self.count += 1
        if self._limit.allows(peer):
            self._log.warning("ignored a broken frame", peer=repr(peer), reason=reason)
