"""Who may call: the keys of the operator, and the tenant that a key stands for."""

import hmac
from collections.abc import Iterable, Sequence
from contextvars import ContextVar
from hashlib import sha256

from octavo.errors import Unauthenticated

_SCHEME = "bearer"

tenant: ContextVar[str] = ContextVar("tenant", default="")
"""Whose request the current task serves; empty where there are no keys."""


class ApiKeys:
    """The keys that open the API; without any it is open."""

    def __init__(self, keys: Sequence[str]) -> None:
        # Hashes have one length: comparing them tells nothing about that of a key.
        self._digests = [_digest(key) for key in keys]

    def tenant_of(self, metadata: Iterable[tuple[str, str | bytes]]) -> str:
        """Return the tenant of a call, which is a hash of its key; raises Unauthenticated."""
        if not self._digests:
            return ""
        values = [value for key, value in metadata if key == "authorization"]
        scheme, _, key = str(values[0]).partition(" ") if values else ("", "", "")
        if scheme.lower() != _SCHEME or not key:
            raise Unauthenticated(
                "this server needs an API key; send the metadata `authorization: Bearer KEY`"
            )
        digest = _digest(key.strip())
        # Each is looked at, so that the time does not tell which one is like it.
        if not sum(hmac.compare_digest(digest, known) for known in self._digests):
            raise Unauthenticated(
                "the API key is wrong; send one of those that the server was started with"
            )
        return digest.hex()


def _digest(key: str) -> bytes:
    return sha256(key.encode()).digest()
