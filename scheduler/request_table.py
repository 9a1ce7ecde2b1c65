"""The live requests: by key, by router and by the time they expire, and how many are queued."""

import heapq
from collections import Counter
from collections.abc import KeysView

from octavo.errors import Overloaded

from .request import Request

_RETRY_AFTER_S = 1.0

_MIN_COMPACTED = 1024
"""Entries of the expiry heap below which outdated ones are left to age out."""


class RequestTable:
    """Every request that has an unfinished output.

    Attributes:
        num_queued_requests: requests that have not been started.
        num_queued_tokens: tokens of their prompts.
        stop_token_ids: tokens that end an output of one request or another.
    """

    def __init__(self, max_num_queued_requests: int, max_num_queued_tokens: int) -> None:
        self._max_num_queued_requests = max_num_queued_requests
        self._max_num_queued_tokens = max_num_queued_tokens
        self._by_key: dict[bytes, Request] = {}
        self._by_router: dict[bytes, dict[bytes, Request]] = {}
        # Keys, not requests: an entry outlives a request that ends before its time.
        self._expiries: list[tuple[int, bytes]] = []
        self._num_stopped_by: Counter[int] = Counter()
        self.stop_token_ids: KeysView[int] = self._num_stopped_by.keys()
        self.num_queued_requests = 0
        self.num_queued_tokens = 0

    def __len__(self) -> int:
        return len(self._by_key)

    def get(self, key: bytes) -> Request | None:
        return self._by_key.get(key)

    def all(self) -> list[Request]:
        return list(self._by_key.values())

    def of_router(self, router_id: bytes) -> list[Request]:
        return list(self._by_router.get(router_id, {}).values())

    def has_router(self, router_id: bytes) -> bool:
        """Whether the router has a request here."""
        return router_id in self._by_router

    def check_queue(self, num_prompt_tokens: int) -> None:
        """Raise Overloaded if the queue has no room for a prompt of this length."""
        if self.num_queued_requests >= self._max_num_queued_requests:
            raise Overloaded(
                f"{self.num_queued_requests} requests are queued, which is the limit;"
                " try again later.",
                retry_after_s=_RETRY_AFTER_S,
            )
        if self.num_queued_tokens + num_prompt_tokens > self._max_num_queued_tokens:
            raise Overloaded(
                f"The queue holds {self.num_queued_tokens} prompt tokens and at most"
                f" {self._max_num_queued_tokens}; try again later.",
                retry_after_s=_RETRY_AFTER_S,
            )

    def add(self, request: Request) -> None:
        self._by_key[request.key] = request
        self._by_router.setdefault(request.router_id, {})[request.key] = request
        self._num_stopped_by.update(request.stop_token_ids)
        self.num_queued_requests += 1
        self.num_queued_tokens += request.num_prompt_tokens
        if request.expires_ns is not None:
            self.set_expiry(request, request.expires_ns)

    def leave_queue(self, request: Request, now_ns: int) -> None:
        """Count the request as started."""
        request.started_ns = now_ns
        self.num_queued_requests -= 1
        self.num_queued_tokens -= request.num_prompt_tokens

    def remove(self, request: Request) -> None:
        """Forget a request that has ended."""
        if request.started_ns is None:
            self.num_queued_requests -= 1
            self.num_queued_tokens -= request.num_prompt_tokens
        del self._by_key[request.key]
        of_router = self._by_router[request.router_id]
        del of_router[request.key]
        if not of_router:
            del self._by_router[request.router_id]
        for token_id in request.stop_token_ids:
            self._num_stopped_by[token_id] -= 1
            if not self._num_stopped_by[token_id]:
                del self._num_stopped_by[token_id]

    def set_expiry(self, request: Request, expires_ns: int) -> None:
        request.expires_ns = expires_ns
        heapq.heappush(self._expiries, (expires_ns, request.key))
        if len(self._expiries) > _MIN_COMPACTED + 2 * len(self._by_key):
            self._expiries = [entry for entry in self._expiries if self._is_current(entry)]
            heapq.heapify(self._expiries)

    def next_expiry_ns(self) -> int | None:
        """Return the earliest time at which a live request expires."""
        while self._expiries and not self._is_current(self._expiries[0]):
            heapq.heappop(self._expiries)
        return self._expiries[0][0] if self._expiries else None

    def pop_expired(self, now_ns: int) -> Request | None:
        """Return a live request whose time is up, or None. The caller ends it."""
        expires_ns = self.next_expiry_ns()
        if expires_ns is None or expires_ns > now_ns:
            return None
        return self._by_key[heapq.heappop(self._expiries)[1]]

    def _is_current(self, entry: tuple[int, bytes]) -> bool:
        expires_ns, key = entry
        request = self._by_key.get(key)
        return request is not None and request.expires_ns == expires_ns
