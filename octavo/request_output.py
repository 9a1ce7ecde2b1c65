"""RequestOutput: what the offline API returns, with vLLM's names, from a stream's events."""

from collections.abc import Collection
from dataclasses import dataclass, field

from .v1 import common_pb2, inference_pb2


@dataclass(slots=True)
class Logprob:
    """The log-probability of one token at one position, of the raw logits."""

    logprob: float
    rank: int | None = None
    """Place among all tokens, the most probable being 1."""
    decoded_token: str | None = None


PositionLogprobs = dict[int, Logprob]
"""By token id: the token that is there, and the best ones."""


@dataclass(slots=True)
class CompletionOutput:
    """One output of a request."""

    index: int
    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    cumulative_logprob: float | None = None
    """Sum over the output's tokens; None unless logprobs were asked for."""
    logprobs: list[PositionLogprobs] | None = None
    finish_reason: str | None = None
    """stop, length or abort."""
    stop_reason: int | str | None = None
    """What ended it: a stop string, or a stop token other than the model's end-of-sequence ones."""


@dataclass(slots=True)
class RequestOutput:
    """A prompt and its outputs."""

    request_id: str
    prompt: str | None
    """As it was given; None for token ids and conversations."""
    prompt_token_ids: list[int] = field(default_factory=list)
    prompt_logprobs: list[PositionLogprobs | None] | None = None
    """Position by position; the first token has none."""
    outputs: list[CompletionOutput] = field(default_factory=list)
    finished: bool = False
    num_cached_tokens: int = 0
    """Of the prompt, found in the prefix cache."""

    def add(self, event: inference_pb2.StreamEvent, stop_token_ids: Collection[int]) -> None:
        """Take the next event of the request's stream; `stop_token_ids` are those it asked for."""
        match event.WhichOneof("event"):
            case "started":
                self.prompt_token_ids = list(event.started.prompt_token_ids)
            case "prompt_logprobs":
                self.prompt_logprobs = [
                    _position_logprobs(each) if each.HasField("logprobs") else None
                    for each in event.prompt_logprobs.positions
                ]
            case "delta":
                _extend(self.outputs[event.delta.output_index], event.delta)
            case "finished":
                _finish(self.outputs[event.finished.output_index], event.finished, stop_token_ids)
            case "usage":
                self.num_cached_tokens = event.usage.num_cached_tokens
                self.finished = True


def _extend(output: CompletionOutput, delta: inference_pb2.Delta) -> None:
    output.text += delta.text
    output.token_ids += delta.token_ids
    if output.logprobs is not None and output.cumulative_logprob is not None:
        output.logprobs += map(_position_logprobs, delta.logprobs)
        output.cumulative_logprob += sum(each.logprobs.chosen.logprob for each in delta.logprobs)


def _finish(
    output: CompletionOutput, finished: inference_pb2.Finished, stop_token_ids: Collection[int]
) -> None:
    name = common_pb2.FinishReason.Name(finished.reason)
    output.finish_reason = name.removeprefix("FINISH_REASON_").lower()
    if finished.HasField("stop_string"):
        output.stop_reason = finished.stop_string
    elif finished.HasField("stop_token_id") and finished.stop_token_id in stop_token_ids:
        output.stop_reason = finished.stop_token_id


def _position_logprobs(position: inference_pb2.TokenText) -> PositionLogprobs:
    tokens = [position.logprobs.chosen, *position.logprobs.top]
    return {
        token.token_id: Logprob(token.logprob, token.rank, text.decode(errors="replace"))
        for token, text in zip(tokens, position.texts, strict=True)
    }
