"""Log-probabilities with the texts of their tokens, as clients get them."""

from collections.abc import Sequence

from octavo.errors import InternalError
from octavo.v1 import common_pb2, inference_pb2, scheduling_pb2

from .tokenizer import Tokenizer


def token_text(
    tokenizer: Tokenizer, logprobs: common_pb2.PositionLogprobs
) -> inference_pb2.TokenText:
    """Return one position with the bytes of each token that is named in it."""
    tokens = (logprobs.chosen, *logprobs.top)
    return inference_pb2.TokenText(
        logprobs=logprobs, texts=[tokenizer.bytes_of(token.token_id) for token in tokens]
    )


class PromptLogprobs:
    """The log-probabilities of one prompt; they come in parts, and again after a preemption."""

    def __init__(self, tokenizer: Tokenizer, prompt_token_ids: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        self._num_positions = len(prompt_token_ids)
        # Nothing comes before the first token: it has a text alone.
        first = inference_pb2.TokenText(texts=[tokenizer.bytes_of(prompt_token_ids[0])])
        self._positions = [first]

    @property
    def is_complete(self) -> bool:
        return len(self._positions) == self._num_positions

    def receive(self, part: scheduling_pb2.PromptPart) -> None:
        """Take a part; positions seen before are dropped. Raises InternalError for a gap."""
        num_seen = len(self._positions) - part.first_position
        if num_seen < 0:
            raise InternalError("log-probabilities were lost on the way; send the request again")
        self._positions += [
            token_text(self._tokenizer, logprobs) for logprobs in part.positions[num_seen:]
        ]

    def event(self) -> inference_pb2.StreamEvent:
        positions = inference_pb2.PromptLogprobsEvent(positions=self._positions)
        return inference_pb2.StreamEvent(prompt_logprobs=positions)
