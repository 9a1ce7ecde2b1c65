"""Failpoints: named places where a test makes a process fail. None is active in production.

The idea is etcd's gofail: the place is in the code for good, the failure is chosen from outside.
"""

import os
import time
from collections.abc import Callable, Iterable

_actions: dict[str, Callable[[], None]] = {}


class FailpointTriggered(Exception):
    """Raised by a failpoint whose action is `raise`."""


def activate(specifications: Iterable[str]) -> None:
    """Activate failpoints given as NAME=ACTION; raises ValueError for an unknown action."""
    for specification in specifications:
        name, _, action = specification.partition("=")
        _actions[name] = _parse(name, action)


def deactivate_all() -> None:
    _actions.clear()


def failpoint(name: str) -> None:
    """Fail here if a test asked for it. Costs one dictionary lookup otherwise."""
    if (action := _actions.get(name)) is not None:
        action()


def _parse(name: str, action: str) -> Callable[[], None]:
    kind, _, argument = action.partition(":")
    if kind == "exit":
        return lambda: os._exit(1)
    if kind == "raise":

        def fail() -> None:
            raise FailpointTriggered(name)

        return fail
    if kind == "delay":
        seconds = float(argument)
        return lambda: time.sleep(seconds)
    raise ValueError(
        f"failpoint {name}: unknown action {action!r}; use exit, raise or delay:SECONDS"
    )
