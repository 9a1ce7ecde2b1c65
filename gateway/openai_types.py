"""The bodies of the OpenAI API, as clients send them.

Numbers are checked here only as far as the router's messages can hold them, and where 0 is refused
it is refused in one sentence with -1; else what values make sense is the router's to say, so REST
and gRPC clients read the same sentences. Unknown fields are
ignored, fields that would change the answer but are not offered yet are refused (not_offered.py).
"""

from typing import Annotated, Any

from msgspec import Meta, Struct

from octavo.field_types import PositiveUint32, TopK, Truncation, Uint32

Int32 = Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)]
Int64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]


class StreamOptions(Struct):
    include_usage: bool | None = None
    """End the stream with a chunk that has no choices but the usage."""
    continuous_usage_stats: bool | None = None
    """Usage so far in every chunk (vLLM)."""


class GenerationBody(Struct, kw_only=True):
    """What both generation routes take; None is the same as absent."""

    model: str | None = None
    """Absent: the one that is served (vLLM)."""
    temperature: float | None = None
    top_p: float | None = None
    top_k: TopK | None = None
    """Absent, 0 and -1 keep all tokens (vLLM)."""
    n: PositiveUint32 | None = None
    seed: Int64 | None = None
    """-1 is the same as absent (vLLM)."""
    max_tokens: PositiveUint32 | None = None
    stop: str | list[str] | None = None
    stop_token_ids: list[Uint32] | None = None
    ignore_eos: bool | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    return_token_ids: bool | None = None
    priority: Int32 | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    min_p: float | None = None
    min_tokens: Uint32 | None = None
    logit_bias: dict[Uint32, float] | None = None
    """By token id, which JSON writes as a string."""
    allowed_token_ids: list[Uint32] | None = None
    bad_words: list[str] | None = None
    prompt_logprobs: Uint32 | None = None
    skip_special_tokens: bool | None = None
    include_stop_str_in_output: bool | None = None
    truncate_prompt_tokens: Truncation | None = None
    """-1 keeps what the context holds beside max_tokens (vLLM)."""
    cache_salt: str | None = None
    echo: bool | None = None
    logprobs: int | None = None
    """Whether, or how many: each route narrows it."""


class ContentPart(Struct):
    type: str
    text: str | None = None


class Message(Struct):
    role: str
    content: str | list[ContentPart] | None = None
    name: str | None = None
    """For templates that tell speakers of one role apart."""
    tool_calls: list[Any] | None = None
    tool_call_id: str | None = None
    function_call: Any = None


class ChatBody(GenerationBody, kw_only=True):
    messages: list[Message]
    max_completion_tokens: PositiveUint32 | None = None
    """The newer name of max_tokens; wins over it."""
    logprobs: bool | None = None
    top_logprobs: Uint32 | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None


class CompletionBody(GenerationBody, kw_only=True):
    prompt: str | list[str | Uint32 | list[Uint32]]
    """One text, many texts, one list of token ids, or many."""
    logprobs: Uint32 | None = None


class TokenizeBody(Struct):
    model: str | None = None
    prompt: str | None = None
    messages: list[Message] | None = None
    """In place of a prompt: a conversation, through the model's chat template."""
    add_special_tokens: bool | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    return_token_strs: bool | None = None
    tools: list[dict[str, Any]] | None = None


class DetokenizeBody(Struct):
    tokens: list[Uint32]
    model: str | None = None
