"""The types of flags that not every value will do for: a wrong one is told in a sentence."""

import re
from collections.abc import Sequence
from typing import Annotated

from cyclopts import CycloptsError, Parameter
from cyclopts.validators import Number

_API_KEY = re.compile(r"[!-~]+")
"""What a header can carry. An empty key would be none, and one with a space two."""

_MAX_INT32 = 2**31 - 1
"""What the protos hold of most counts, with or without a sign."""


def check_api_keys(_: object, keys: Sequence[str]) -> None:
    """Raise for a key that could never be sent, in a sentence that does not show it."""
    if not all(map(_API_KEY.fullmatch, keys)):
        raise CycloptsError(
            msg="--api-key: a key is at least one ASCII character, without spaces; choose another."
        )


ApiKeys = Annotated[tuple[str, ...], Parameter(validator=check_api_keys)]
Count = Annotated[int, Parameter(validator=Number(gte=1, lte=_MAX_INT32))]
Index = Annotated[int, Parameter(validator=Number(gte=0, lte=_MAX_INT32))]
Bytes = Annotated[int, Parameter(validator=Number(gte=1))]
Share = Annotated[float, Parameter(validator=Number(gte=0, lte=1))]
Port = Annotated[int, Parameter(validator=Number(gte=1, lte=65_535))]
PortOrZero = Annotated[int, Parameter(validator=Number(gte=0, lte=65_535))]
"""0 means none, or one that is free."""
Seconds = Annotated[float, Parameter(validator=Number(gte=0, lte=86_400))]
"""A day at most: timers take no infinity. NaN is in no range."""
