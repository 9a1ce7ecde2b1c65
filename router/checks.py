"""What every check of a request is made of."""

import math
from collections.abc import Sequence

from octavo.errors import InvalidArgument


def check(is_good: bool, field: str, message: str) -> None:
    """Raise InvalidArgument that names the field, unless it is good."""
    if not is_good:
        raise InvalidArgument(message, field=field)


def check_count(count: int, limit: int, field: str, noun: str) -> None:
    """Raise InvalidArgument if a list is longer than is taken."""
    check(count <= limit, field, f"{field} has {count} {noun}; at most {limit} are taken")


def check_token_ids(token_ids: Sequence[int], field: str, vocab_size: int) -> None:
    """Raise InvalidArgument unless the model, of `vocab_size` tokens, has these."""
    largest = max(token_ids, default=0)
    check(
        largest < vocab_size,
        field,
        f"{field} has the token id {largest}; the model's ids are below {vocab_size}",
    )


def shown(value: float) -> str:
    """Return the number as the client wrote it: the wire rounds it to 32 bits."""
    return f"{value:.6g}" if math.isfinite(value) else str(value)
