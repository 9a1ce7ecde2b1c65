"""What the routers are told: tokens and ends, one message for each router and step."""

from collections import Counter
from dataclasses import dataclass, field

from octavo.v1 import common_pb2, scheduling_pb2

from .request import Request, Sequence

_Tokens = tuple[list[Sequence], list[int], list[int]]
"""Columns: the sequence, the position in its output, and the token id of each new token."""


@dataclass(slots=True)
class _RouterOutputs:
    """What a router is told next; the first four are columns."""

    request_keys: list[bytes] = field(default_factory=list)
    output_indices: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[common_pb2.PositionLogprobs] = field(default_factory=list)
    """Of those tokens whose requests want them."""
    prompt_logprobs: list[scheduling_pb2.PromptPart] = field(default_factory=list)
    finished: list[scheduling_pb2.OutputFinished] = field(default_factory=list)

    def add_tokens(
        self, sequences: list[Sequence], positions: list[int], token_ids: list[int]
    ) -> None:
        """Add a token for each sequence, at this position of its output."""
        self.request_keys += [sequence.request.key for sequence in sequences]
        self.output_indices += [sequence.output_index for sequence in sequences]
        self.positions += positions
        self.token_ids += token_ids


class Outputs:
    """Collects, by router, what has happened since the last `take`."""

    def __init__(self) -> None:
        self._routers: dict[bytes, _RouterOutputs] = {}
        self._tokens: list[_Tokens] = []

    def add_router(self, router_id: bytes) -> None:
        """Make known that the router has a request."""
        self._of(router_id)

    def add_tokens(
        self, sequences: list[Sequence], positions: list[int], token_ids: list[int]
    ) -> None:
        """Add a token for each sequence, at this position of its output."""
        self._tokens.append((sequences, positions, token_ids))

    def add_finished(self, router_id: bytes, finished: scheduling_pb2.OutputFinished) -> None:
        self._of(router_id).finished.append(finished)

    def add_logprobs(self, router_id: bytes, logprobs: common_pb2.PositionLogprobs) -> None:
        """Add those of the token that is added next and wants some."""
        self._of(router_id).logprobs.append(logprobs)

    def add_prompt_logprobs(self, router_id: bytes, part: scheduling_pb2.PromptPart) -> None:
        self._of(router_id).prompt_logprobs.append(part)

    def drop(self, router_id: bytes) -> None:
        """Forget a router that has no requests, and whatever it was to be told."""
        self._sort_tokens()
        self._routers.pop(router_id, None)

    def take(self) -> dict[bytes, scheduling_pb2.StepOutputs]:
        """Return the news by router, and begin anew."""
        self._sort_tokens()
        taken = {}
        for router_id, outputs in self._routers.items():
            if outputs.token_ids or outputs.finished or outputs.prompt_logprobs:
                taken[router_id] = _step_outputs(outputs)
                self._routers[router_id] = _RouterOutputs()
        return taken

    def _sort_tokens(self) -> None:
        """Give each router its tokens."""
        for sequences, positions, token_ids in self._tokens:
            if len(self._routers) == 1:
                (outputs,) = self._routers.values()
                outputs.add_tokens(sequences, positions, token_ids)
                continue
            for sequence, position, token_id in zip(sequences, positions, token_ids, strict=True):
                outputs = self._of(sequence.request.router_id)
                outputs.add_tokens([sequence], [position], [token_id])
        self._tokens.clear()

    def _of(self, router_id: bytes) -> _RouterOutputs:
        return self._routers.setdefault(router_id, _RouterOutputs())


def _step_outputs(outputs: _RouterOutputs) -> scheduling_pb2.StepOutputs:
    return scheduling_pb2.StepOutputs(
        request_key=outputs.request_keys,
        output_index=outputs.output_indices,
        first_position=outputs.positions,
        num_tokens=[1] * len(outputs.token_ids),
        token_ids=outputs.token_ids,
        logprobs=outputs.logprobs,
        prompt_logprobs=outputs.prompt_logprobs,
        finished=outputs.finished,
    )


def usage_of(request: Request, now_ns: int) -> common_pb2.Usage:
    """Return what a request used; its last output has just ended."""
    since = request.submitted_ns
    started_ns = now_ns if request.started_ns is None else request.started_ns
    first_token_ns = since if request.first_token_ns is None else request.first_token_ns
    return common_pb2.Usage(
        num_prompt_tokens=request.num_prompt_tokens,
        num_cached_tokens=request.num_cached_tokens,
        num_computed_tokens=request.num_computed_tokens,
        num_output_tokens=request.num_output_tokens,
        num_discarded_tokens=request.num_discarded_tokens,
        num_preemptions=request.num_preemptions,
        num_resumptions=request.num_resumptions,
        queue_ns=started_ns - since,
        first_token_ns=first_token_ns - since,
        total_ns=now_ns - since,
    )


@dataclass(slots=True)
class SchedulerStats:
    """Counters since the start; only the scheduler's decisions write them."""

    num_requests: int = 0
    num_steps: int = 0
    num_prompt_tokens: int = 0
    """Of requests when they are first started."""
    num_cached_tokens: int = 0
    """Of these, found in the prefix cache."""
    num_computed_tokens: int = 0
    """Planned to be run through the model."""
    num_generated_tokens: int = 0
    """Sampled and delivered."""
    num_discarded_tokens: int = 0
    """Sampled and thrown away: their output had ended meanwhile, or was rolled back."""
    num_preemptions: int = 0
    num_stale_results: int = 0
    """Results of another epoch, and such as were applied already or never asked for."""
    num_worker_losses: int = 0
    num_finished: Counter[int] = field(default_factory=Counter)
    """Outputs, by FinishReason."""
