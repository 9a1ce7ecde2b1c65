"""Values from Python programs, checked against the types that they should have."""

from typing import Any

import msgspec

from .errors import InvalidArgument


def typed(value: object, its_type: Any, name: str) -> Any:
    """Return `value` as its type; raises InvalidArgument with what `name` should have been."""
    try:
        return msgspec.convert(value, its_type)
    except msgspec.ValidationError as error:
        # "Expected `int | null`, got `str` - at `$[0]`"
        reason = str(error).partition(" - at ")[0].replace("null", "None")
        raise InvalidArgument(
            f"{name} is {value!r:.80}; {reason[0].lower()}{reason[1:]}", field=name
        ) from None
