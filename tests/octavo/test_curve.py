"""octavo.curve and octavo.handshake_monitor, on plain sockets."""

from contextlib import closing

import zmq

from octavo.curve import CurveKeys, new_key_pair
from octavo.handshake_monitor import BROKEN, HandshakeMonitor

TIMEOUT_MS = 10_000


def test_without_an_authenticator_nobody_gets_in() -> None:
    """Left to itself libzmq would encrypt, and let everybody in."""
    listener_public, listener_secret = new_key_pair()
    caller_public, caller_secret = new_key_pair()
    with zmq.Context() as context, context.socket(zmq.ROUTER) as listener:
        CurveKeys(listener_secret, frozenset({caller_public})).guard_listener(listener)
        with closing(HandshakeMonitor(listener, BROKEN)) as monitor:
            port = listener.bind_to_random_port("tcp://127.0.0.1")
            with context.socket(zmq.DEALER) as caller:
                caller.setsockopt(zmq.LINGER, 0)
                CurveKeys(caller_secret, frozenset({listener_public})).guard_caller(caller)
                caller.connect(f"tcp://127.0.0.1:{port}")
                caller.send(b"")
                assert monitor.socket.poll(TIMEOUT_MS)
                assert [failure.is_final for failure in monitor.failures()] == [False]
                assert not listener.poll(0)


def test_a_secret_is_not_shown() -> None:
    _, secret = new_key_pair()
    assert secret.decode() not in repr(CurveKeys(secret, frozenset()))
