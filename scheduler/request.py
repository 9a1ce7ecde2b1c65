"""A request and its sequences: one sequence for each of its outputs.

There is no prefill phase and no decode phase. A sequence has tokens that are expected (known, or
being sampled by a plan in flight), and `num_computed_tokens` catches up with them.

    prompt_token_ids | output_token_ids | samples in flight |
    0 ............................. num_tokens .. num_expected_tokens .. token_limit
    0 .... num_computed_tokens: their KV is in the blocks once the plans in flight have run
"""

from array import array
from dataclasses import dataclass, field
from enum import Enum

from octavo.block_hash import BlockHash
from octavo.v1 import common_pb2

from .block_pool import Block


class SequenceStatus(Enum):
    WAITING = "waiting"
    RUNNING = "running"
    """Has a row and blocks."""
    FINISHED = "finished"


@dataclass(slots=True, eq=False, kw_only=True)
class Request:
    """One generation asked for. Times are the scheduler's own, in nanoseconds."""

    key: bytes
    router_id: bytes
    arrival: int
    """1, 2, 3, ... in the order of submission."""
    priority: int
    """Lower is sooner; 0 for all under fcfs."""
    adapter: str
    prompt_token_ids: "array[int]"
    root_hash: BlockHash
    prompt_block_hashes: list[BlockHash]
    """One for each full block of the prompt; empty where prefix caching is off."""
    sampling: common_pb2.SamplingParams
    stop_token_ids: frozenset[int]
    min_tokens: int
    """No output ends with a stop token before it has so many tokens."""
    bad_words: "tuple[common_pb2.TokenIds, ...]"
    num_logprobs: int | None
    """Most probable tokens told beside each token drawn, with log-probabilities; None: no such."""
    num_prompt_logprobs: int | None
    max_output_tokens: int
    """Of one output; prompt and output fit the context."""
    submitted_ns: int
    expires_ns: int | None
    """When the client's time is up."""
    resume_window_ns: int
    """How long the request outlives its router's connection."""
    is_orphan: bool = False
    """Its router is gone; it expires when the resume window closes."""
    sequences: "list[Sequence]" = field(default_factory=list)
    """By output index."""
    next_prompt_logprob: int = 1
    """Position in the prompt whose log-probabilities are told next, if they are wanted."""

    # Usage, counted while the request lives.
    num_unfinished: int = 0
    """Sequences that have not finished."""
    num_prompt_tokens: int = field(init=False)
    num_cached_tokens: int = 0
    num_computed_tokens: int = 0
    num_output_tokens: int = 0
    num_discarded_tokens: int = 0
    num_preemptions: int = 0
    num_resumptions: int = 0
    started_ns: int | None = None
    first_token_ns: int | None = None

    def __post_init__(self) -> None:
        self.num_prompt_tokens = len(self.prompt_token_ids)

    @property
    def misses_prompt_logprobs(self) -> bool:
        """Whether some are still to come: until then its prompt has to be computed, not found."""
        is_done = self.next_prompt_logprob >= self.num_prompt_tokens
        return self.num_prompt_logprobs is not None and not is_done

    @property
    def expiry_reason(self) -> "common_pb2.FinishReason":
        """Why its outputs end when it expires."""
        if self.is_orphan:
            return common_pb2.FINISH_REASON_ABORT
        return common_pb2.FINISH_REASON_DEADLINE


@dataclass(slots=True, eq=False)
class Sequence:
    """One output of a request, which is one row of the workers while it runs."""

    request: Request
    output_index: int
    seed: int
    output_token_ids: "array[int]"
    """Known so far; those delivered before a failover included."""
    order: tuple[int, int, int] = field(init=False)
    """(priority, arrival, output index): who comes first, waiting or running."""
    wants_logprobs: bool = field(init=False)
    """Of each of its tokens."""
    status: SequenceStatus = SequenceStatus.WAITING
    max_position: int | None = None
    """Output position before which generation pauses; None: it does not."""
    token_limit: int = field(init=False)
    """No token is sampled beyond this length: max_tokens, the context, and the router's window."""
    num_computed_tokens: int = 0
    num_expected_tokens: int = field(init=False)
    last_step_id: int = 0
    """The last plan that it was part of."""
    due_step_id: int = 0
    """The step that takes a decision on it again, while it coasts; 0: it does not. What it has
    computed and expects, and its last step, are then as of when it began to (running_set.py)."""
    num_tokens_at_loss: int = 0
    """Tokens known when workers were last lost in a step with it; 0: none were."""
    row: int = -1
    block_tables: list[list[Block]] = field(default_factory=list)
    """One for each KV group; empty while it waits."""
    block_hashes: list[BlockHash] = field(init=False)
    """Chain over full blocks of known tokens, extended when it is needed."""
    num_writable_tokens: int = 0
    """Length up to which its blocks are there, and its own where they are not full."""
    num_registered_blocks: int = 0
    """Leading blocks whose content the prefix cache knows."""
    num_prefix_tokens: int = 0
    """Tokens it did not compute itself since it has its row: prefix hit, or shared at a fork."""

    def __post_init__(self) -> None:
        request = self.request
        self.order = (request.priority, request.arrival, self.output_index)
        self.wants_logprobs = request.num_logprobs is not None
        self.block_hashes = list(request.prompt_block_hashes)
        self.num_expected_tokens = self.num_tokens
        self.set_window(None)

    @property
    def num_tokens(self) -> int:
        """Tokens known."""
        return self.request.num_prompt_tokens + len(self.output_token_ids)

    @property
    def is_complete(self) -> bool:
        """Whether its last token ends it."""
        outputs, request = self.output_token_ids, self.request
        return bool(outputs) and (
            outputs[-1] in request.stop_token_ids or len(outputs) >= request.max_output_tokens
        )

    @property
    def is_paused(self) -> bool:
        """Whether it waits for its reader."""
        return (
            self.max_position is not None
            and self.num_expected_tokens >= self.token_limit
            and not self.has_all_tokens_planned
        )

    @property
    def has_all_tokens_planned(self) -> bool:
        """Whether it ends with the plans in flight, whatever they bring."""
        request = self.request
        return self.num_expected_tokens >= request.num_prompt_tokens + request.max_output_tokens

    def set_window(self, max_position: int | None) -> None:
        """Pause before the output position `max_position`."""
        self.max_position = max_position
        allowed = self.request.max_output_tokens
        if max_position is not None:
            allowed = min(allowed, max_position)
        self.token_limit = self.request.num_prompt_tokens + allowed

    def cut(self, num_outputs: int) -> None:
        """Count tokens after the first `num_outputs` of the output as discarded."""
        num_cut = max(len(self.output_token_ids) - num_outputs, 0)
        self.request.num_discarded_tokens += num_cut
        del self.output_token_ids[len(self.output_token_ids) - num_cut :]
        self.num_expected_tokens -= num_cut

    def token_ids(self, start: int, stop: int) -> "array[int]":
        """Return known tokens by position, prompt first."""
        shift = self.request.num_prompt_tokens
        if start >= shift:
            return self.output_token_ids[start - shift : stop - shift]
        return (
            self.request.prompt_token_ids[start:stop]
            + self.output_token_ids[: max(stop - shift, 0)]
        )
