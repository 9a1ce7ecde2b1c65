"""The types of numbers that clients send, by REST and from Python: what the protos can hold."""

from typing import Annotated

from msgspec import Meta

_MAX_UINT32 = 2**32 - 1
Uint32 = Annotated[int, Meta(ge=0, le=_MAX_UINT32)]
PositiveUint32 = Annotated[int, Meta(ge=1, le=_MAX_UINT32)]
TopK = Annotated[int, Meta(ge=-1, le=_MAX_UINT32)]
"""0 and -1: all."""
Truncation = Annotated[int, Meta(ge=-1, le=2**31 - 1)]
"""-1: as far as it must be."""
