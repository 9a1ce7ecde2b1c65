"""Hands the tokens of a step to the streams they belong to: columns, for this is the hot path."""

from collections.abc import Mapping

from octavo.v1 import scheduling_pb2

from .output_stream import OutputStream


class MalformedOutputs(Exception):
    """The columns do not fit one another."""


def hand_out(outputs: scheduling_pb2.StepOutputs, streams: Mapping[bytes, OutputStream]) -> None:
    """Give each stream its tokens, and the word that an output has ended.

    Tokens of a request that has just been aborted have no stream any more and are dropped. If one
    stream cannot take its tokens, it alone fails: the others share the reader.
    """
    keys, counts = outputs.request_key, outputs.num_tokens
    # Copied once for the step: slices of a list cost nothing, slices of a protobuf field do.
    token_ids = list(outputs.token_ids)
    if not len(keys) == len(counts) == len(outputs.output_index) == len(outputs.first_position):
        raise MalformedOutputs("it sent columns of different lengths")
    if sum(counts) != len(token_ids):
        raise MalformedOutputs("it sent more or fewer token ids than it says")
    start = 0
    for key, output_index, first_position, num_tokens in zip(
        keys, outputs.output_index, outputs.first_position, counts, strict=True
    ):
        end = start + num_tokens
        if (stream := streams.get(key)) is not None:
            try:
                stream.receive(output_index, first_position, token_ids[start:end])
            except Exception as error:  # noqa: BLE001
                stream.fail(error)
        start = end
    for finished in outputs.finished:
        if (stream := streams.get(finished.request_key)) is not None:
            try:
                stream.finish(finished)
            except Exception as error:  # noqa: BLE001
                stream.fail(error)
