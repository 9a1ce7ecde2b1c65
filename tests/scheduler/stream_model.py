"""What the routers have to be told of each request, known without any scheduler."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from octavo.v1 import common_pb2, scheduling_pb2
from tests.scheduler.fake_worker import next_token


@dataclass(slots=True)
class Stream:
    """One output, as its router sees it."""

    token_ids: list[int]
    """Received so far, or delivered before a failover."""
    reason: int | None = None
    num_counted: int | None = None
    """Tokens that count in the usage, where an abort said so."""
    has_failed: bool = False
    """The worker reported an error for it, or two workers in a row were lost with it."""
    num_tokens_at_loss: int | None = None
    """Tokens received when a worker was last lost in a step with it."""
    is_aborted: bool = False
    max_position: int | None = None
    """Where the router's window ends."""


@dataclass(slots=True)
class OpenRequest:
    """One request, as its router sees it."""

    submit: scheduling_pb2.SubmitRequest
    max_output_tokens: int
    expires_ns: int | None
    streams: list[Stream] = field(default_factory=list)
    usage: common_pb2.Usage | None = None
    is_lost: bool = False
    """Its router is gone; nobody listens."""
    num_tokens_received: int = 0

    def __post_init__(self) -> None:
        delivered = {entry.output_index: entry.token_ids for entry in self.submit.delivered}
        self.streams = [Stream(list(delivered.get(i, ()))) for i in range(self.submit.n)]

    @property
    def is_open(self) -> bool:
        return not self.is_lost and any(stream.reason is None for stream in self.streams)

    def is_complete(self, stream: Stream) -> bool:
        """Whether the stream has all the tokens it may have."""
        tokens = stream.token_ids
        return bool(tokens) and (
            tokens[-1] in self.submit.stop_token_ids or len(tokens) >= self.max_output_tokens
        )

    def receive(self, output_index: int, position: int, token_id: int) -> None:
        stream = self.streams[output_index]
        assert stream.reason is None, "a token came after the end of its output"
        assert position == len(stream.token_ids), "a token came twice, or one is missing"
        history = [*self.submit.prompt_token_ids, *stream.token_ids]
        assert token_id == next_token(history, self.submit.seeds[output_index]), "a wrong token"
        assert not self.is_complete(stream), "a token came after the last one"
        assert stream.max_position is None or position < stream.max_position, "a closed window"
        stream.token_ids.append(token_id)
        self.num_tokens_received += 1

    def finish(self, finished: scheduling_pb2.OutputFinished, now_ns: int) -> None:
        stream = self.streams[finished.output_index]
        assert stream.reason is None, "an output ended twice"
        stream.reason = finished.reason
        self._check_reason(stream, finished, now_ns)
        is_last = all(other.reason is not None for other in self.streams)
        assert finished.HasField("usage") == is_last, "usage rides on the last end, and only there"
        if is_last:
            self.usage = finished.usage
            self._check_usage(finished.usage)

    def _check_reason(
        self, stream: Stream, finished: scheduling_pb2.OutputFinished, now_ns: int
    ) -> None:
        match finished.reason:
            case common_pb2.FINISH_REASON_LENGTH:
                assert len(stream.token_ids) == self.max_output_tokens
                assert stream.token_ids[-1] not in self.submit.stop_token_ids
            case common_pb2.FINISH_REASON_STOP if finished.HasField("stop_token_id"):
                assert stream.token_ids[-1] == finished.stop_token_id
                assert finished.stop_token_id in self.submit.stop_token_ids
            case common_pb2.FINISH_REASON_STOP | common_pb2.FINISH_REASON_ABORT:
                assert stream.is_aborted, "an output ended as aborted that nobody aborted"
            case common_pb2.FINISH_REASON_DEADLINE:
                assert self.expires_ns is not None and now_ns >= self.expires_ns
            case common_pb2.FINISH_REASON_ERROR:
                assert stream.has_failed and finished.error, "an output failed without an error"
            case _:
                raise AssertionError(f"reason {finished.reason}")

    def _check_usage(self, usage: common_pb2.Usage) -> None:
        counts = [
            len(stream.token_ids)
            if stream.num_counted is None
            else min(stream.num_counted, len(stream.token_ids))
            for stream in self.streams
        ]
        assert usage.num_output_tokens == sum(counts)
        assert usage.num_prompt_tokens == len(self.submit.prompt_token_ids)
        assert usage.num_cached_tokens < max(usage.num_prompt_tokens, 1) + sum(counts)
        undisturbed = len(self.streams) == 1 and not usage.num_preemptions
        if undisturbed and not usage.num_discarded_tokens and not usage.num_resumptions:
            finished_by_token = (
                self.streams[0].reason
                in (
                    common_pb2.FINISH_REASON_STOP,
                    common_pb2.FINISH_REASON_LENGTH,
                )
                and not self.streams[0].is_aborted
            )
            if finished_by_token:
                computed_and_cached = usage.num_computed_tokens + usage.num_cached_tokens
                # The last token needs no KV; one that was planned before its end was known may.
                assert computed_and_cached == usage.num_prompt_tokens + sum(counts) - 1


def expected_output(
    prompt: Sequence[int], seed: int, max_tokens: int, stop: Sequence[int] = ()
) -> list[int]:
    """Return the output that a request alone would get."""
    output: list[int] = []
    while len(output) < max_tokens and not (output and output[-1] in stop):
        output.append(next_token([*prompt, *output], seed))
    return output
