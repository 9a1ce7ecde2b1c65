"""Checks that a port can be listened on, before anything is started."""

import errno
import socket

from .startup import StartupError

_MAX_PORT = 65535


def check_port_is_free(host: str, port: int, flag: str) -> None:
    """Raise StartupError, naming `flag`, unless a server could listen on the address."""
    if not 0 <= port <= _MAX_PORT:
        # gRPC would listen on what is left of it in 16 bits.
        raise StartupError(f"{flag} is {port}, but ports are 0 to {_MAX_PORT}.")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            # As servers do: connections of an earlier server that linger are no obstacle.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except socket.gaierror as error:
        raise StartupError(
            f"--host {host}: no such address here ({error.strerror}); give another."
        ) from error
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise StartupError(
                f"port {port} on {host} is in use by another process;"
                f" stop that one, or choose another port with {flag}."
            ) from error
        raise StartupError(
            f"cannot listen on port {port} of {host} ({error.strerror});"
            f" choose another with {flag}, or another address with --host."
        ) from error


def join_host_port(host: str, port: int) -> str:
    """Return host:port, with the brackets that an IPv6 address needs."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
