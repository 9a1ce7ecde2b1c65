"""Who may connect over TCP: workers with a known key; all others are turned away, and logged."""

import asyncio

import structlog
import zmq
import zmq.asyncio
from zmq.auth.asyncio import AsyncioAuthenticator

from octavo.curve import ZAP_DOMAIN, CurveKeys
from octavo.handshake_monitor import BROKEN, HandshakeMonitor
from octavo.log_limit import LogLimit


class WorkerGuard:
    """Answers libzmq's question (ZAP) whether a key is known; part of the event loop.

    libzmq asks after a handshake that only a holder of the scheduler's public key can begin, and
    lets nothing of a peer through before the answer.
    """

    def __init__(
        self,
        context: "zmq.Context[zmq.Socket[bytes]]",
        socket: "zmq.Socket[bytes]",
        keys: CurveKeys,
    ) -> None:
        """Guard a socket that is not bound yet."""
        self._known = keys.peers
        # Anyone who reaches the port may cause lines.
        self._limit = LogLimit()
        self._log = structlog.get_logger()
        self._authenticator = AsyncioAuthenticator(zmq.asyncio.Context(context))
        self._authenticator.configure_curve_callback(ZAP_DOMAIN.decode(), self)
        self._authenticator.start()
        keys.guard_listener(socket)
        self._monitor = HandshakeMonitor(socket, BROKEN)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._monitor.socket.fileno(), self._log_failures)
        # libzmq raises the first edge only once it has been seen that nothing is there.
        self._log_failures()

    def close(self) -> None:
        self._loop.remove_reader(self._monitor.socket.fileno())
        self._monitor.close()
        self._authenticator.stop()

    def callback(self, domain: str, key: bytes) -> bool:
        """Say whether a worker with this public key may connect; called by the authenticator."""
        if key in self._known:
            return True
        if self._limit.allows("unknown key"):
            reason = "its key is not in --curve-peer-keys-file"
            self._log.warning("turned a worker away", reason=reason, key=key.decode())
        return False

    def _log_failures(self) -> None:
        for failure in self._monitor.failures():
            if self._limit.allows(failure.reason):
                self._log.warning("turned a worker away", reason=failure.reason)
