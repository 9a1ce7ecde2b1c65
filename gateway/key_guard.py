"""Who may call the REST API: every route needs a key but those that load balancers ask."""

from collections.abc import Sequence
from contextvars import ContextVar

from starlette.types import ASGIApp, Receive, Scope, Send

from octavo.api_keys import ApiKeys

OPEN_PATHS = frozenset({"/health", "/ready", "/version"})

authorization: ContextVar[str] = ContextVar("authorization", default="")
"""What the router is shown for the current request; empty where there are no keys."""


class KeyGuard:
    """ASGI middleware. The router is shown the client's key: it has to know whose request it is."""

    def __init__(self, app: ASGIApp, keys: Sequence[str]) -> None:
        self._app = app
        self._keys = ApiKeys(keys)
        self._own = f"Bearer {keys[0]}" if keys else ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises Unauthenticated, which HttpBoundary answers."""
        if scope["path"] in OPEN_PATHS:
            # /ready asks the router for its models, in nobody's name.
            authorization.set(self._own)
        else:
            shown = _authorization(scope)
            self._keys.tenant_of(shown)
            authorization.set(shown if self._own else "")
        await self._app(scope, receive, send)


def _authorization(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"authorization":
            return bytes(value).decode("latin-1")
    return ""
