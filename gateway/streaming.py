"""An answer as server-sent events: one chunk, and one write, for each message of the router.

    data: {"id", "object", "created", "model", "choices": [{"index", "delta", ...}]}

Of a chunk only the text differs from one message to the next, so everything around it is made once,
as bytes; the text is escaped and put between (docs: OpenAI's chat completion chunk object).
"""

from collections.abc import Callable, Sequence

import msgspec
from starlette.types import Send

from octavo.errors import RequestError
from octavo.v1 import common_pb2
from octavo.v1.inference_pb2 import Delta, Finished, PromptLogprobsEvent, TokenText

from .answer import (
    AnswerStyle,
    Identity,
    UsageTotal,
    finish_reason,
    new_identity,
    stop_reason,
)
from .errors import error_body
from .logprobs import CompletionLogprobsWriter, chat_logprobs
from .openai_types import GenerationBody, StreamOptions
from .router_client import RouterStream
from .router_requests import num_outputs

_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    # Proxies of nginx's kind would hold the events back.
    (b"x-accel-buffering", b"no"),
]
_DONE = b"data: [DONE]\n\n"
_UNICODE_LINE_ENDS = [(char.encode(), b"\\u%04x" % ord(char)) for char in "\x85\u2028\u2029"]

_encode = msgspec.json.Encoder().encode


class StreamedAnswer:
    """An AnswerSink that writes each event to the client as it comes."""

    def __init__(
        self,
        style: AnswerStyle,
        body: GenerationBody,
        streams: Sequence[RouterStream],
        send: Send,
        on_first_text: Callable[[], None],
    ) -> None:
        """`on_first_text` is called when the first text is about to be written."""
        self._style = style
        self._body = body
        self._started = [stream.started for stream in streams]
        self._send = send
        self._on_first_text: Callable[[], None] | None = on_first_text
        self._usage = UsageTotal()
        self._so_far = UsageTotal(sum(started.num_prompt_tokens for started in self._started))
        options = body.stream_options or StreamOptions()
        self._has_usage_chunk = bool(options.include_usage)
        self._has_running_usage = bool(options.continuous_usage_stats)
        identity = new_identity(style, self._started[0].model)
        self._head = _head(identity, style)
        num_choices = len(streams) * num_outputs(body)
        self._choice_heads = [
            self._head + b'"choices":[{"index":%d,' % choice for choice in range(num_choices)
        ]
        self._text_heads = [head + style.text_open for head in self._choice_heads]
        self._text_tail = style.text_close + b',"logprobs":null,"finish_reason":null'
        self._logprobs_writers = [CompletionLogprobsWriter() for _ in range(num_choices)]

    async def open(self) -> None:
        """Send the head of the response and the first chunk of each choice."""
        start = {"type": "http.response.start", "status": 200, "headers": _HEADERS}
        await self._send(start)
        if chunks := self._opening_chunks():
            await self._write(chunks)

    async def prompt_logprobs(self, prompt: int, event: PromptLogprobsEvent) -> None:
        """Give an echoed prompt's log-probabilities to each of its choices, before the text."""
        n = num_outputs(self._body)
        for choice in range(prompt * n, prompt * n + n):
            tail = self._tail_with_logprobs(choice, event.positions)
            parts = self._text_heads[choice], b'""', tail, b"}]", self._tail()
            await self._write(b"".join(parts))

    async def text(self, choice: int, text: str, num_tokens: int) -> None:
        self._so_far.num_output_tokens += num_tokens
        if not text:
            return  # Tokens whose text is still held back.
        self._notice_text()
        parts = self._text_heads[choice], _encode_text(text), self._text_tail, b"}]", self._tail()
        await self._write(b"".join(parts))

    async def delta(self, choice: int, delta: Delta) -> None:
        if not delta.logprobs and not self._body.return_token_ids:
            await self.text(choice, delta.text, delta.num_tokens)
            return
        self._so_far.num_output_tokens += delta.num_tokens
        if not delta.text and not delta.token_ids and not delta.logprobs:
            return
        if delta.text:
            self._notice_text()
        tail = self._text_tail
        if delta.logprobs:
            tail = self._tail_with_logprobs(choice, delta.logprobs)
        parts = [self._text_heads[choice], _encode_text(delta.text), tail]
        if self._body.return_token_ids:
            parts += b',"token_ids":', _encode(list(delta.token_ids))
        parts += b"}]", self._tail()
        await self._write(b"".join(parts))

    async def finished(self, choice: int, finished: Finished) -> None:
        await self._write(
            b'%b%b,"logprobs":null,"finish_reason":%b,"stop_reason":%b}]%b'
            % (
                self._choice_heads[choice],
                self._style.no_text,
                _encode(finish_reason(finished)),
                _encode(stop_reason(finished, self._body)),
                self._tail(),
            )
        )

    def usage(self, usage: common_pb2.Usage) -> None:
        self._usage.add(usage)

    async def close(self) -> None:
        """Send the usage, if it was asked for, and the end of the stream."""
        chunk = b""
        if self._has_usage_chunk:
            chunk = b'%b"choices":[],"usage":%b}\n\n' % (self._head, _encode(self._usage.to_json()))
        await self._write_last(chunk + _DONE)

    async def fail(self, error: RequestError) -> None:
        """Send the error, which comes too late for an HTTP status, and the end of the stream."""
        await self._write_last(b"data: %b\n\n" % error_body(error) + _DONE)

    def _opening_chunks(self) -> bytes:
        if not self._style.opening and not self._body.return_token_ids:
            return b""
        n = num_outputs(self._body)
        chunks = []
        for choice, head in enumerate(self._choice_heads):
            in_choice = in_chunk = b""
            if self._body.return_token_ids:
                ids = _encode(list(self._started[choice // n].prompt_token_ids))
                if not self._style.is_chat:
                    in_choice = b',"prompt_token_ids":' + ids
                elif choice == 0:
                    in_chunk = b',"prompt_token_ids":' + ids
            opening = self._style.opening or self._style.no_text
            chunks.append(
                b'%b%b,"logprobs":null,"finish_reason":null%b}]%b%b'
                % (head, opening, in_choice, in_chunk, self._tail())
            )
        return b"".join(chunks)

    def _tail_with_logprobs(self, choice: int, tokens: Sequence[TokenText]) -> bytes:
        """Return what stands behind the text of a chunk that has log-probabilities."""
        logprobs = (
            chat_logprobs(tokens)
            if self._style.is_chat
            else self._logprobs_writers[choice].write(tokens)
        )
        encoded = _without_line_ends(_encode(logprobs))
        return b'%b,"logprobs":%b,"finish_reason":null' % (self._style.text_close, encoded)

    def _notice_text(self) -> None:
        if self._on_first_text is not None:
            self._on_first_text()
            self._on_first_text = None

    def _tail(self) -> bytes:
        """Return what ends a chunk, from behind its choices."""
        if self._has_running_usage:
            return b',"usage":%b}\n\n' % _encode(self._so_far.to_json())
        return b',"usage":null}\n\n' if self._has_usage_chunk else b"}\n\n"

    async def _write(self, body: bytes) -> None:
        await self._send({"type": "http.response.body", "body": body, "more_body": True})

    async def _write_last(self, body: bytes) -> None:
        await self._send({"type": "http.response.body", "body": body, "more_body": False})


def _encode_text(text: str) -> bytes:
    """Return the text as a JSON string without any character that str.splitlines() splits at.

    Only CR and LF end a line of an event stream, but clients that split so are common.
    """
    encoded = _encode(text)
    return encoded if text.isascii() else _without_line_ends(encoded)


def _without_line_ends(encoded: bytes) -> bytes:
    for character, escape in _UNICODE_LINE_ENDS:
        encoded = encoded.replace(character, escape)
    return encoded


def _head(identity: Identity, style: AnswerStyle) -> bytes:
    """Return what every chunk begins with."""
    return b'data: {"id":%b,"object":%b,"created":%d,"model":%b,' % (
        _encode(identity.id),
        _encode(style.chunk_object),
        identity.created,
        _encode(identity.model),
    )
