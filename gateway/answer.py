"""An answer in the making: what both routes share, answered in one piece or as a stream."""

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from octavo.v1 import common_pb2
from octavo.v1.common_pb2 import FinishReason
from octavo.v1.inference_pb2 import Delta, Finished, PromptLogprobsEvent

from .openai_answers import PromptTokensDetails, Usage
from .openai_types import GenerationBody
from .relay import RelayedText
from .router_client import RouterStream, run_together
from .router_requests import num_outputs

_FINISH_REASONS = {
    FinishReason.FINISH_REASON_STOP: "stop",
    FinishReason.FINISH_REASON_LENGTH: "length",
    FinishReason.FINISH_REASON_ABORT: "abort",
    FinishReason.FINISH_REASON_DEADLINE: "deadline",
    FinishReason.FINISH_REASON_ERROR: "error",
}


@dataclass(frozen=True, kw_only=True)
class AnswerStyle:
    """How one route words its answers."""

    id_prefix: str
    object: str
    chunk_object: str
    """`object` in the chunks of a stream."""
    opening: bytes
    """What the first chunk of a choice holds; empty: there is none."""
    text_open: bytes
    """What stands before the text, a JSON string, in a chunk's choice."""
    text_close: bytes
    no_text: bytes
    """What a chunk's choice holds in place of text."""
    is_chat: bool


CHAT = AnswerStyle(
    id_prefix="chatcmpl-",
    object="chat.completion",
    chunk_object="chat.completion.chunk",
    opening=b'"delta":{"role":"assistant","content":""}',
    text_open=b'"delta":{"content":',
    text_close=b"}",
    no_text=b'"delta":{}',
    is_chat=True,
)

COMPLETION = AnswerStyle(
    id_prefix="cmpl-",
    object="text_completion",
    chunk_object="text_completion",
    opening=b"",
    text_open=b'"text":',
    text_close=b"",
    no_text=b'"text":""',
    is_chat=False,
)


@dataclass
class UsageTotal:
    """Tokens of all prompts of one HTTP request together."""

    num_prompt_tokens: int = 0
    num_output_tokens: int = 0
    num_cached_tokens: int = 0

    def add(self, usage: common_pb2.Usage) -> None:
        self.num_prompt_tokens += usage.num_prompt_tokens
        self.num_output_tokens += usage.num_output_tokens
        self.num_cached_tokens += usage.num_cached_tokens

    def to_json(self) -> Usage:
        return Usage(
            self.num_prompt_tokens,
            self.num_output_tokens,
            self.num_prompt_tokens + self.num_output_tokens,
            PromptTokensDetails(self.num_cached_tokens),
        )


@dataclass(frozen=True, slots=True)
class Identity:
    """What every chunk and every body of one answer repeats."""

    id: str
    created: int
    model: str


def new_identity(style: AnswerStyle, model: str) -> Identity:
    """Return an identity with an id of our own: what clients send is never part of it."""
    return Identity(style.id_prefix + uuid.uuid4().hex, int(time.time()), model)


def finish_reason(finished: Finished) -> str:
    return _FINISH_REASONS[finished.reason]


def stop_reason(finished: Finished, body: GenerationBody) -> str | int | None:
    """Return what the client asked to stop at; None for the model's own end (as vLLM)."""
    match finished.WhichOneof("matched"):
        case "stop_string":
            return finished.stop_string
        case "stop_token_id" if finished.stop_token_id in (body.stop_token_ids or ()):
            return finished.stop_token_id
    return None


class AnswerSink(Protocol):
    """Takes the events of an answer; choices are numbered prompt by prompt."""

    async def prompt_logprobs(self, prompt: int, event: PromptLogprobsEvent) -> None: ...

    async def text(self, choice: int, text: str, num_tokens: int) -> None:
        """Take text, and nothing beside it, of `num_tokens` tokens."""

    async def delta(self, choice: int, delta: Delta) -> None: ...

    async def finished(self, choice: int, finished: Finished) -> None: ...

    def usage(self, usage: common_pb2.Usage) -> None: ...


async def relay(streams: Sequence[RouterStream], body: GenerationBody, sink: AnswerSink) -> None:
    """Give the sink every event of the streams; raises the first stream's RequestError."""
    n = num_outputs(body)
    await run_together([_relay_one(stream, i, n, sink) for i, stream in enumerate(streams)])


async def _relay_one(stream: RouterStream, prompt: int, n: int, sink: AnswerSink) -> None:
    first_choice = prompt * n
    async for event in stream.events():
        if isinstance(event, RelayedText):
            await sink.text(first_choice + event.output_index, event.text, event.num_tokens)
            continue
        match event.WhichOneof("event"):
            case "prompt_logprobs":
                await sink.prompt_logprobs(prompt, event.prompt_logprobs)
            case "delta":
                await sink.delta(first_choice + event.delta.output_index, event.delta)
            case "finished":
                await sink.finished(first_choice + event.finished.output_index, event.finished)
            case "usage":
                sink.usage(event.usage)
