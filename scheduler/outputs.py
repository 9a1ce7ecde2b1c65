"""What the routers are told: tokens and ends, one message for each router and step."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import chain

from octavo.v1 import common_pb2, scheduling_pb2

from .request import Request, Sequence

_Tokens = tuple[list[Sequence], list[int], list[int]]
"""Columns: the sequence, the position in its output, and the token id of each new token."""


class Outputs:
    """Collects, by router, what has happened since the last `take`."""

    def __init__(self) -> None:
        self._routers: dict[bytes, scheduling_pb2.StepOutputs] = {}
        self._tokens: list[_Tokens] = []
        # Steps have the same sequences, in the same list, while nobody joins or leaves.
        self._last_sequences: list[Sequence] = []
        self._last_columns = b""

    def add_router(self, router_id: bytes) -> None:
        """Make known that the router has a request."""
        self._of(router_id)

    def add_tokens(
        self, sequences: list[Sequence], positions: list[int], token_ids: list[int]
    ) -> None:
        """Add a token for each sequence, at this position of its output; the lists never change."""
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
                taken[router_id] = outputs
                self._routers[router_id] = scheduling_pb2.StepOutputs()
        return taken

    def _sort_tokens(self) -> None:
        """Give each router its tokens."""
        if len(self._tokens) > 1 and len(self._routers) == 1:
            (outputs,) = self._routers.values()
            # Log-probabilities are told in the order of their tokens, step by step.
            if not outputs.logprobs:
                _append_runs(outputs, self._tokens)
                self._tokens.clear()
        for sequences, positions, token_ids in self._tokens:
            if len(self._routers) == 1:
                (outputs,) = self._routers.values()
                if sequences is not self._last_sequences:
                    self._last_sequences = sequences
                    self._last_columns = _columns(sequences)
                _append(outputs, self._last_columns, positions, token_ids)
                continue
            by_router: dict[bytes, list[tuple[Sequence, int, int]]] = {}
            for token in zip(sequences, positions, token_ids, strict=True):
                by_router.setdefault(token[0].request.router_id, []).append(token)
            for router_id, tokens in by_router.items():
                its_sequences, its_positions, its_token_ids = zip(*tokens, strict=True)
                _append(self._of(router_id), _columns(its_sequences), its_positions, its_token_ids)
        self._tokens.clear()

    def _of(self, router_id: bytes) -> scheduling_pb2.StepOutputs:
        outputs = self._routers.get(router_id)
        if outputs is None:
            outputs = self._routers[router_id] = scheduling_pb2.StepOutputs()
        return outputs


def _columns(sequences: Iterable[Sequence]) -> bytes:
    """Return the columns that say whose tokens these are, one each, serialized."""
    request_keys = [sequence.request.key for sequence in sequences]
    return scheduling_pb2.StepOutputs(
        request_key=request_keys,
        output_index=[sequence.output_index for sequence in sequences],
        num_tokens=[1] * len(request_keys),
    ).SerializeToString()


def _append(
    outputs: scheduling_pb2.StepOutputs,
    columns: bytes,
    positions: Iterable[int],
    token_ids: Iterable[int],
) -> None:
    """Append tokens to what a router is told; `columns` say whose they are."""
    outputs.MergeFromString(columns)
    outputs.first_position.extend(positions)
    outputs.token_ids.extend(token_ids)


def _append_runs(outputs: scheduling_pb2.StepOutputs, steps: Iterable[_Tokens]) -> None:
    """Append the tokens of several steps to what a router is told, one run for each sequence."""
    runs: dict[Sequence, tuple[int, list[int]]] = {}
    for columns in steps:
        for sequence, position, token_id in zip(*columns, strict=True):
            if (run := runs.get(sequence)) is None:
                runs[sequence] = position, [token_id]
            else:
                run[1].append(token_id)
    outputs.request_key.extend([sequence.request.key for sequence in runs])
    outputs.output_index.extend([sequence.output_index for sequence in runs])
    outputs.num_tokens.extend([len(token_ids) for _, token_ids in runs.values()])
    outputs.first_position.extend([position for position, _ in runs.values()])
    outputs.token_ids.extend(chain.from_iterable([token_ids for _, token_ids in runs.values()]))


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
