"""The bodies of the OpenAI API: what clients send, what they get.

Numbers are checked here only as far as the router's messages can hold them; what values make sense
is the router's to say, so REST and gRPC clients read the same sentences. Unknown fields are
ignored, fields that would change the answer but are not offered yet are refused (not_offered.py).
"""

from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType

_MAX_UINT32 = 2**32 - 1
Uint32 = Annotated[int, Meta(ge=0, le=_MAX_UINT32)]
Int32 = Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)]
Int64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]


class StreamOptions(Struct):
    include_usage: bool | None = None
    """End the stream with a chunk that has no choices but the usage."""
    continuous_usage_stats: bool | None = None
    """Usage so far in every chunk (vLLM)."""


class GenerationBody(Struct, kw_only=True):
    """What both generation routes take; None is the same as absent."""

    model: str
    temperature: float | None = None
    top_p: float | None = None
    top_k: Annotated[int, Meta(ge=-1, le=_MAX_UINT32)] | None = None
    """Absent, 0 and -1 keep all tokens (vLLM)."""
    n: Annotated[int, Meta(ge=1, le=_MAX_UINT32)] | None = None
    seed: Int64 | None = None
    """-1 is the same as absent (vLLM)."""
    max_tokens: Uint32 | None = None
    stop: str | list[str] | None = None
    stop_token_ids: list[Uint32] | None = None
    ignore_eos: bool | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    return_token_ids: bool | None = None
    priority: Int32 | None = None


class ContentPart(Struct):
    type: str
    text: str | None = None


class Message(Struct):
    role: str
    content: str | list[ContentPart] | None = None
    tool_calls: list[object] | None = None


class ChatBody(GenerationBody, kw_only=True):
    messages: list[Message]
    max_completion_tokens: Uint32 | None = None
    """The newer name of max_tokens; wins over it."""


class CompletionBody(GenerationBody, kw_only=True):
    prompt: str | list[str | Uint32 | list[Uint32]]
    """One text, many texts, one list of token ids, or many."""


class PromptTokensDetails(Struct):
    cached_tokens: int


class Usage(Struct):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails


class ChatMessage(Struct):
    role: str
    content: str


class ChatChoice(Struct):
    index: int
    message: ChatMessage
    finish_reason: str
    stop_reason: str | int | None
    logprobs: None = None
    token_ids: list[int] | UnsetType = UNSET


class ChatAnswer(Struct):
    id: str
    object: str
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage
    prompt_token_ids: list[int] | UnsetType = UNSET


class CompletionChoice(Struct):
    index: int
    text: str
    finish_reason: str
    stop_reason: str | int | None
    logprobs: None = None
    prompt_token_ids: list[int] | UnsetType = UNSET
    token_ids: list[int] | UnsetType = UNSET


class CompletionAnswer(Struct):
    id: str
    object: str
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage


class ModelCard(Struct):
    id: str
    object: str
    created: int
    owned_by: str
    root: str
    max_model_len: int


class ModelList(Struct):
    object: str
    data: list[ModelCard]
