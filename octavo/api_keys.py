"""Who may call: the keys of the operator, and the tenant that a key stands for."""

import hmac
from collections.abc import Sequence
from hashlib import sha256

from .errors import Unauthenticated

_SCHEME = "bearer"


class ApiKeys:
    """The keys that open the API; without any it is open."""

    def __init__(self, keys: Sequence[str]) -> None:
        # Hashes have one length: comparing them tells nothing about that of a key.
        self._digests = [_digest(key) for key in keys]

    def tenant_of(self, authorization: str) -> str:
        """Return the tenant that a call is for, which is a hash of its key.

        Args:
            authorization: the HTTP header or gRPC metadata of that name; empty if there is none.
        Raises:
            Unauthenticated: there are keys, and this is none of them.
        """
        if not self._digests:
            return ""
        scheme, _, key = authorization.partition(" ")
        if scheme.lower() != _SCHEME or not key:
            raise Unauthenticated(
                "this server needs an API key; send it as `Authorization: Bearer KEY`"
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
