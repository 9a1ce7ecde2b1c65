"""A request body as JSON: decoded once, with what is wrong told by the client's own field names."""

import re
from typing import TypeVar

import msgspec

from octavo.errors import InvalidArgument

from .not_offered import refuse_not_offered
from .openai_types import GenerationBody

AnyBodyT = TypeVar("AnyBodyT", bound=msgspec.Struct)
BodyT = TypeVar("BodyT", bound=GenerationBody)

_PATH = re.compile(r" - at (?:`key` in )?`\$\.?(.*?)(?:\[\.\.\.\])?`$")
"""Keys and values of an object that maps are told by the name of the object."""
_MISSING = re.compile(r"missing required field `(.*?)`")
_WORDS = {"str": "string", "int": "integer", "float": "number", "bool": "boolean"}
_TYPES = re.compile(r"`([^`]*)`")


def decode_body(decoder: msgspec.json.Decoder[BodyT], raw: bytes) -> BodyT:
    """Return a generation's body, or raise InvalidArgument with the field at fault."""
    body = decode_json(decoder, raw)
    refuse_not_offered(body)
    if body.stream_options is not None and not body.stream:
        raise InvalidArgument(
            "stream_options is only for streams; set stream to true or leave it out.",
            field="stream_options",
        )
    return body


def decode_json(decoder: msgspec.json.Decoder[AnyBodyT], raw: bytes) -> AnyBodyT:
    """Return what the JSON says, or raise InvalidArgument with the field at fault."""
    try:
        return decoder.decode(raw)
    except msgspec.ValidationError as error:
        raise _wrong_type(str(error)) from None
    except msgspec.DecodeError as error:
        reason = str(error).removeprefix("JSON is malformed: ")
        raise InvalidArgument(f"The body is not valid JSON: {reason}.") from None
    except UnicodeDecodeError as error:
        raise InvalidArgument(f"The body is not valid UTF-8: {error.reason}.") from None
    except RecursionError:
        raise InvalidArgument("The body is not valid JSON: it is nested too deep.") from None


def _wrong_type(text: str) -> InvalidArgument:
    """Turn msgspec's "Expected `int`, got `str` - at `$.a[0].b`" into a sentence about a[0].b."""
    path = match.group(1) if (match := _PATH.search(text)) else ""
    reason = _PATH.sub("", text)
    if missing := _MISSING.search(reason):
        field = f"{path}.{missing.group(1)}".lstrip(".")
        return InvalidArgument(f"{field} is missing.", field=field)
    reason = _TYPES.sub(lambda types: _json_words(types.group(1)), reason)
    reason = reason[0].lower() + reason[1:]
    if not path:
        return InvalidArgument(f"The body is wrong: {reason}.")
    return InvalidArgument(f"{path} is wrong: {reason}.", field=path)


def _json_words(types: str) -> str:
    return " or ".join(_WORDS.get(name, name) for name in types.split(" | "))
