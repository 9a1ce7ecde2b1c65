"""Hands the tokens of a step to the streams they belong to: columns, for this is the hot path."""

from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from typing import TypeVarTuple

from octavo.v1 import scheduling_pb2

from .output_stream import OutputStream

_Arguments = TypeVarTuple("_Arguments")


class MalformedOutputs(Exception):
    """The columns do not fit one another."""


def hand_out(
    outputs: scheduling_pb2.StepOutputs,
    streams: Mapping[bytes, OutputStream],
    with_logprobs: AbstractSet[bytes] = frozenset(),
) -> None:
    """Give each stream its tokens, and the word that an output has ended.

    Args:
        outputs: what one step brought.
        streams: request key → stream.
        with_logprobs: keys of the requests whose tokens have log-probabilities, those without a
            stream included.

    Tokens of a request that has just been aborted have no stream any more and are dropped. If one
    stream cannot take its tokens, it alone fails: the others share the reader.

    Raises:
        MalformedOutputs: nobody can tell whose tokens are whose.
    """
    keys, counts = outputs.request_key, outputs.num_tokens
    # Copied once for the step: slices of a list cost nothing, slices of a protobuf field do.
    token_ids = list(outputs.token_ids)
    if not len(keys) == len(counts) == len(outputs.output_index) == len(outputs.first_position):
        raise MalformedOutputs("it sent columns of different lengths")
    if sum(counts) != len(token_ids):
        raise MalformedOutputs("it sent more or fewer token ids than it says")
    logprobs = list(outputs.logprobs)
    num_wanted = sum(
        n for key, n in zip(keys, counts, strict=True) if with_logprobs and key in with_logprobs
    )
    if num_wanted != len(logprobs):
        raise MalformedOutputs("it sent more or fewer log-probabilities than were asked for")
    for part in outputs.prompt_logprobs:
        if (stream := streams.get(part.request_key)) is not None:
            _guarded(stream, stream.receive_prompt_logprobs, part)
    start = logprobs_start = 0
    for key, output_index, first_position, num_tokens in zip(
        keys, outputs.output_index, outputs.first_position, counts, strict=True
    ):
        end = start + num_tokens
        logprobs_end = logprobs_start + (num_tokens if key in with_logprobs else 0)
        if (stream := streams.get(key)) is not None:
            _guarded(
                stream,
                stream.receive,
                output_index,
                first_position,
                token_ids[start:end],
                logprobs[logprobs_start:logprobs_end],
            )
        start, logprobs_start = end, logprobs_end
    for finished in outputs.finished:
        if (stream := streams.get(finished.request_key)) is not None:
            _guarded(stream, stream.finish, finished)


def _guarded(
    stream: OutputStream, receive: Callable[[*_Arguments], None], *arguments: *_Arguments
) -> None:
    """Call a method of the stream; what it raises fails the stream alone."""
    try:
        receive(*arguments)
    except Exception as error:  # noqa: BLE001
        stream.fail(error)
