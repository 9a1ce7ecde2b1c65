"""A reader of event streams, written from the WHATWG specification."""

import json
from typing import Any


def events(body: bytes) -> list[str]:
    """Return the data of each event; fails where something is no event."""
    assert body.endswith(b"\n\n")
    found = []
    for block in body.removesuffix(b"\n\n").split(b"\n\n"):
        assert block.startswith(b"data: ") and b"\n" not in block and b"\r" not in block, block
        found.append(block.removeprefix(b"data: ").decode())
    return found


def chunks(body: bytes) -> list[dict[str, Any]]:
    """Return the chunks of a stream that ends as it must."""
    *found, done = events(body)
    assert done == "[DONE]"
    return [json.loads(chunk) for chunk in found]
