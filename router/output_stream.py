"""What one client is still to be sent: tokens come in from the scheduler, events go out."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Protocol

from octavo.errors import DeadlineExceeded, InternalError, Overloaded
from octavo.v1 import common_pb2, inference_pb2, scheduling_pb2

from .output_text import OutputText
from .pending_output import PendingOutput
from .token_texts import PromptLogprobs, token_text
from .tokenizer import Tokenizer

MAX_BUFFERED_BYTES = 256 * 1024
# The scheduler is told to pause well before the buffer is full: what is in flight still arrives.
PAUSE_BUFFERED_BYTES = 64 * 1024
# How far an output may run ahead of a client that has stalled once; less where the buffer would be
# full before.
WINDOW_TOKENS = 2048

_TOKEN_BYTES = 4
# Of one token, generously.
_TEXT_BYTES = 16
# Of one token that is named at a position, its text and its numbers.
_LOGPROB_BYTES = 32


class StreamControl(Protocol):
    """What a stream tells its scheduler."""

    def abort(
        self,
        request_key: bytes,
        reason: scheduling_pb2.AbortReason,
        *,
        output_index: int | None = None,
        final_token_count: int | None = None,
    ) -> None: ...

    def set_window(self, request_key: bytes, output_index: int, max_position: int) -> None: ...


class SlowReader(Overloaded):
    """The client does not read what it asked for."""


class OutputStream:
    """All outputs of one request.

    Only the SchedulerClient calls `receive`, `finish` and `fail`; only the service reads `events`.
    What arrives between two reads becomes one event for each output. A relay may take the text.
    """

    def __init__(
        self,
        request: scheduling_pb2.SubmitRequest,
        texts: Sequence[OutputText],
        control: StreamControl,
        *,
        tokenizer: Tokenizer,
        return_token_ids: bool,
        echo: str = "",
    ) -> None:
        """`echo` is what each output's text begins with."""
        self.request = request
        self._outputs = [PendingOutput(text) for text in texts]
        self._control = control
        self._return_token_ids = return_token_ids
        self._usage: common_pb2.Usage | None = None
        self._error: Exception | None = None
        self._has_news = asyncio.Event()
        self._is_relayed = False
        self._on_text: Callable[[], None] = self._has_news.set
        self._num_buffered_bytes = 0
        self._num_excess_tokens = 0
        self._has_windows = False
        self._tokenizer = tokenizer
        self._echo = echo
        self._prompt_logprobs = (
            PromptLogprobs(tokenizer, request.prompt_token_ids)
            if request.HasField("num_prompt_logprobs")
            else None
        )
        self._token_bytes = _TOKEN_BYTES
        if request.HasField("num_logprobs"):
            self._token_bytes += _LOGPROB_BYTES * (1 + request.num_logprobs)
        step_bytes = len(texts) * (self._token_bytes + _TEXT_BYTES)
        room_bytes = MAX_BUFFERED_BYTES - PAUSE_BUFFERED_BYTES
        self._window_tokens = min(WINDOW_TOKENS, room_bytes // step_bytes)

    @property
    def is_plain(self) -> bool:
        """Whether text is all that was asked for: no token ids, log-probabilities or echo."""
        has_logprobs = self.request.HasField("num_logprobs") or self._prompt_logprobs is not None
        return not (self._return_token_ids or has_logprobs or self._echo)

    @property
    def is_closed(self) -> bool:
        """Whether the scheduler has nothing more for this request."""
        return all(output.is_closed for output in self._outputs)

    def receive(
        self,
        output_index: int,
        first_position: int,
        token_ids: Sequence[int],
        logprobs: Sequence[common_pb2.PositionLogprobs] = (),
    ) -> None:
        """Take tokens of one output; those seen before are dropped, a gap fails the request."""
        output = self._outputs[output_index]
        num_seen = len(output.received) - first_position
        if num_seen < 0:
            self.fail(InternalError("tokens were lost on the way; send the request again"))
            return
        new_token_ids = token_ids[num_seen:]
        output.received += new_token_ids
        if output.is_finished or self._error is not None:
            return
        output.pending_logprobs += logprobs[num_seen:]
        num_tokens_before = output.text.num_tokens
        text = output.text.extend(new_token_ids)
        self._buffer(output, text, output.text.num_tokens - num_tokens_before)
        if output.text.stop_string is not None:
            self._end(output_index, output, common_pb2.FINISH_REASON_STOP)
            self._control.abort(
                self.request.request_key,
                scheduling_pb2.ABORT_REASON_STOP_STRING,
                output_index=output_index,
                final_token_count=output.text.num_tokens,
            )

    def receive_prompt_logprobs(self, part: scheduling_pb2.PromptPart) -> None:
        if self._prompt_logprobs is not None:
            self._prompt_logprobs.receive(part)
            self._has_news.set()

    def finish(self, finished: scheduling_pb2.OutputFinished) -> None:
        """Take the scheduler's last word about one output."""
        output = self._outputs[finished.output_index]
        if output.is_closed:
            return
        output.is_closed = True
        is_by_token = finished.HasField("stop_token_id")
        if finished.reason == common_pb2.FINISH_REASON_ERROR:
            self.fail(InternalError(finished.error))
        elif finished.reason == common_pb2.FINISH_REASON_DEADLINE:
            self.fail(DeadlineExceeded("the request's deadline passed before it was done"))
        elif not output.is_finished:
            self._buffer(output, output.text.finish(), 0)
            stop_token_id = finished.stop_token_id if is_by_token else None
            self._end(finished.output_index, output, finished.reason, stop_token_id)
        elif is_by_token or finished.reason != common_pb2.FINISH_REASON_STOP:
            # It ended by itself before it heard of the stop string: the rest was counted as output.
            self._num_excess_tokens += len(output.received) - output.text.num_tokens
        if finished.HasField("usage"):
            self._usage = common_pb2.Usage()
            self._usage.CopyFrom(finished.usage)
            self._usage.num_output_tokens -= self._num_excess_tokens
            self._usage.num_discarded_tokens += self._num_excess_tokens
            self._has_news.set()

    def fail(self, error: Exception) -> None:
        """End the stream with an error, after what has arrived before it, unless that is all."""
        if self._error is None and self._usage is None:
            self._error = error
            self._has_news.set()

    def relay(self, on_text: Callable[[], None]) -> None:
        """Leave text and ends of a plain stream to `take_text`: `on_text` says when there are any.

        `events` then has the usage alone, when all of them are taken.
        """
        self._is_relayed, self._on_text = True, on_text
        # The first tokens may have been faster than whoever wants them.
        if any(output.has_pending for output in self._outputs):
            on_text()

    def end_relay(self) -> None:
        """Let `events` have what there is from now on."""
        self._is_relayed, self._on_text = False, self._has_news.set
        self._has_news.set()

    def take_text(self) -> Iterator[tuple[int, int, str, inference_pb2.Finished | None]]:
        """Yield (output index, tokens, text, its end if that is behind it) of what is pending."""
        for index, output in enumerate(self._outputs):
            if output.has_pending:
                num_tokens, text = self._take_text(output)
                finish, output.pending_finish = output.pending_finish, None
                yield index, num_tokens, text, finish
        if self._usage is not None or self._error is not None:
            self._has_news.set()

    async def events(self) -> AsyncIterator[inference_pb2.StreamEvent]:
        """Yield what there is to send; the usage is the last. Raises what the stream failed of."""
        async for event in self._prompt_events():
            yield event
        while True:
            await self._has_news.wait()
            self._has_news.clear()
            for index, output in enumerate(() if self._is_relayed else self._outputs):
                # Both at one moment: more may arrive while the first is being written.
                delta = self._take_delta(index, output)
                finish, output.pending_finish = output.pending_finish, None
                if delta is not None:
                    yield delta
                if finish is not None:
                    yield inference_pb2.StreamEvent(finished=finish)
            if self._has_news.is_set() or any(output.has_pending for output in self._outputs):
                continue
            if self._error is not None:
                raise self._error
            if self._usage is not None:
                yield inference_pb2.StreamEvent(usage=self._usage)
                return

    async def _prompt_events(self) -> AsyncIterator[inference_pb2.StreamEvent]:
        """Yield what is about the prompt: it goes before the first delta."""
        prompt = self._prompt_logprobs
        if prompt is not None:
            while not (prompt.is_complete or self._error or self._usage):
                self._has_news.clear()
                await self._has_news.wait()
            if prompt.is_complete:
                yield prompt.event()
            # What else has arrived is still to be looked at.
            self._has_news.set()
        if self._echo:
            for index in range(len(self._outputs)):
                delta = inference_pb2.Delta(output_index=index, text=self._echo)
                yield inference_pb2.StreamEvent(delta=delta)

    def _take_delta(self, index: int, output: PendingOutput) -> inference_pb2.StreamEvent | None:
        """Return all that is pending of one output as one event, if there is anything."""
        if not output.has_pending_text:
            return None
        position = output.num_sent_tokens
        event = inference_pb2.StreamEvent()
        # Field by field where it is: half the time of making a Delta and copying it.
        delta = event.delta
        delta.output_index = index
        delta.position = position
        num_tokens, text = self._take_text(output)
        delta.num_tokens = num_tokens
        delta.text = text
        if self._return_token_ids:
            delta.token_ids.extend(output.received[position : position + num_tokens])
        for logprobs in output.pending_logprobs[:num_tokens]:
            delta.logprobs.append(token_text(self._tokenizer, logprobs))
        output.pending_logprobs.clear()
        return event

    def _take_text(self, output: PendingOutput) -> tuple[int, str]:
        """Return the number of tokens that are pending of an output, and their text."""
        num_tokens = output.text.num_tokens - output.num_sent_tokens
        text = "".join(output.pending_text)
        output.num_sent_tokens += num_tokens
        output.pending_text.clear()
        self._num_buffered_bytes -= len(text) + self._token_bytes * num_tokens
        if self._has_windows and self._num_buffered_bytes <= PAUSE_BUFFERED_BYTES:
            self._widen_windows()
        return num_tokens, text

    def _buffer(self, output: PendingOutput, text: str, num_tokens: int) -> None:
        if text:
            output.pending_text.append(text)
        self._num_buffered_bytes += len(text) + self._token_bytes * num_tokens
        if self._num_buffered_bytes > MAX_BUFFERED_BYTES:
            self.fail(SlowReader("the client reads too slowly; its output was given up"))
            self._control.abort(self.request.request_key, scheduling_pb2.ABORT_REASON_SLOW_READER)
        elif self._num_buffered_bytes > PAUSE_BUFFERED_BYTES and not self._has_windows:
            self._has_windows = True
            for index, each in enumerate(self._outputs):
                self._set_window(index, each, len(each.received))
        self._on_text()

    def _end(
        self,
        output_index: int,
        output: PendingOutput,
        reason: common_pb2.FinishReason,
        stop_token_id: int | None = None,
    ) -> None:
        """Let the client know why an output ended; of two reasons the stop string is the one."""
        ended = inference_pb2.Finished(output_index=output_index, reason=reason)
        if output.text.stop_string is not None:
            ended.reason = common_pb2.FINISH_REASON_STOP
            ended.stop_string = output.text.stop_string
        elif stop_token_id is not None:
            ended.stop_token_id = stop_token_id
        output.pending_finish = ended
        output.is_finished = True
        self._on_text()

    def _widen_windows(self) -> None:
        """Let outputs go on that are about to pause, now that the client reads again.

        A window only ever widens: the scheduler takes a smaller one for an older one.
        """
        for index, output in enumerate(self._outputs):
            num_received = len(output.received)
            if (output.max_position or 0) - num_received < self._window_tokens // 2:
                self._set_window(index, output, num_received + self._window_tokens)

    def _set_window(self, output_index: int, output: PendingOutput, max_position: int) -> None:
        if not output.is_finished:
            output.max_position = max_position
            self._control.set_window(self.request.request_key, output_index, max_position)
