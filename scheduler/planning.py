"""Which tokens next.

One rule: the computed tokens of each sequence catch up with those expected, as far as the step's
budget goes; running sequences first, then waiting ones, both in the same order. A prompt, the rest
of it, the next token, and everything anew after a preemption are all that rule. A token is sampled
when the last expected one is computed. Beside rows that decode, those that catch up with more
than one token share what step_cost.py allows.

Progress: the first sequence in order whose reader does not stall never loses its blocks to another,
so it ends; then the next one is first.

Idea of the rule: vLLM's v1 scheduler (https://github.com/vllm-project/vllm).
"""

from .planned_step import PlannedStep
from .prompt_budget import PromptBudget
from .request import Sequence, SequenceStatus
from .state import SchedulerState

MAX_SENT_TOKENS = 1 << 18
"""Known tokens that the rows added in one step bring along, the last row's apart: with prefix hits
they cost no budget, but a plan has to stay below what a worker takes as one frame."""


# Looking it up in the enum takes longer than most decisions.
_RUNNING = SequenceStatus.RUNNING


def plan_step(state: SchedulerState, step_id: int, now_ns: int) -> PlannedStep:
    """Return the next step; it has no sequences if there is nothing to compute."""
    step = PlannedStep(step_id, len(state.config.kv_groups))
    budget = _plan_running(state, step)
    # Blocks are short after a preemption: a newcomer would be the next to lose its own.
    if not step.has_preempted:
        budget = _plan_waiting(state, step, budget, now_ns)
    step.roster = state.running.coasting_and(step.decided)
    for sequence in step.sampled:
        _let_coast(state, sequence)
    state.stats.num_computed_tokens += state.config.max_num_batched_tokens - budget
    return step


def _plan_running(state: SchedulerState, step: PlannedStep) -> int:
    """Plan running sequences in order; returns the budget that is left.

    Those that coast take one token each, whoever comes before them; what a step decides is about
    the others.
    """
    budget = state.config.max_num_batched_tokens
    running = state.running
    for sequence in running.land_due(step.step_id):
        budget -= _plan_sequence(state, sequence, step, budget)
    if running.num_coasting > budget:
        running.land_last(running.num_coasting - budget)
    budget -= running.num_coasting
    step.last_samples = running.advance(step.step_id)
    return budget


def _plan_sequence(
    state: SchedulerState, sequence: Sequence, step: PlannedStep, budget: int
) -> int:
    """Plan what the budget allows of a running sequence, making room; returns its new tokens.

    `budget` is what those before it leave that do not coast.
    """
    if sequence.status is not _RUNNING:
        # It lost its blocks to one before it.
        return 0
    if sequence.num_expected_tokens >= sequence.token_limit:
        # It waits for its reader, or for its last token.
        return 0
    num_wanted = sequence.num_expected_tokens - sequence.num_computed_tokens
    running = state.running
    if num_wanted > budget - running.num_coasting:
        # Those that coast behind it come after it.
        budget -= running.num_coasting_before(sequence)
        if budget <= 0:
            return 0
    num_new_tokens = min(num_wanted, budget)
    if num_wanted > 1:
        num_allowed = _prompt_tokens_left(state, step, sequence.num_computed_tokens)
        num_new_tokens = min(num_new_tokens, num_allowed)
        if not num_new_tokens:
            return 0
    end = sequence.num_computed_tokens + num_new_tokens
    while not state.kv_cache.grow(sequence, end, step):
        victim = _choose_victim(state, sequence, step)
        state.preempt(victim)
        step.has_preempted = True
        if victim is sequence:
            return 0
    _compute(state, sequence, num_new_tokens, step)
    return num_new_tokens


def _choose_victim(state: SchedulerState, sequence: Sequence, step: PlannedStep) -> Sequence:
    """Return who gives blocks back for `sequence`: itself, if all others are planned or go first.

    The lowest priority gives first, then who loses least work, then who came last.
    """
    candidates = [
        other
        for other in state.running.snapshot()
        if other.order[0] >= sequence.order[0]
        and other is not sequence
        and other.last_step_id != step.step_id
        and not (other.due_step_id and other.order < sequence.order)
    ]

    def cost(other: Sequence) -> tuple[int, int, int, int]:
        priority, arrival, output_index = other.order
        lost = 0 if other.has_all_tokens_planned else state.kv_cache.num_private_tokens(other)
        return -priority, lost, -arrival, -output_index

    return min(candidates, key=cost, default=sequence)


def _plan_waiting(state: SchedulerState, step: PlannedStep, budget: int, now_ns: int) -> int:
    """Give rows to waiting sequences, in order, until one does not fit; returns what is left."""
    num_sent_tokens = 0
    for sequence in state.waiting.snapshot():
        if budget <= 0 or not _prompt_tokens_left(state, step, 0):
            break
        if num_sent_tokens >= MAX_SENT_TOKENS:
            break
        if not _is_ready(state, sequence):
            continue
        if not _make_place(state, sequence, step):
            break
        _start(state, sequence, step, now_ns)
        num_sent_tokens += sequence.num_tokens
        context = sequence.num_computed_tokens
        # After a long prefix a token may take more than the time that is left.
        num_allowed = max(1, _prompt_tokens_left(state, step, context))
        num_new_tokens = min(sequence.num_expected_tokens - context, budget, num_allowed)
        _compute(state, sequence, num_new_tokens, step)
        budget -= num_new_tokens
    return budget


def _prompt_tokens_left(state: SchedulerState, step: PlannedStep, context: int) -> int:
    """Return how many more tokens the step has for a sequence with more than one to compute.

    `context`: those that it has computed.
    """
    if step.prompt_budget is None:
        step.prompt_budget = _prompt_budget(state, step)
    return step.prompt_budget.num_tokens_left(
        step.num_prompt_tokens, step.num_prompt_pairs, context
    )


def _prompt_budget(state: SchedulerState, step: PlannedStep) -> PromptBudget:
    """Return what the step has for all sequences with more than one token to compute."""
    num_decoding, num_behind = state.running.num_coasting + len(step.decided), 0
    if num_decoding and state.step_cost.wants_decoding_only(step.step_id):
        return PromptBudget(0)
    for sequence in state.running.landed():
        is_planned = sequence.last_step_id == step.step_id
        if not is_planned and sequence.num_expected_tokens < sequence.token_limit:
            is_behind = sequence.num_expected_tokens - sequence.num_computed_tokens > 1
            num_behind += is_behind
            num_decoding += not is_behind
    return state.step_cost.prompt_budget(num_decoding, num_behind + len(state.waiting))


def _make_place(state: SchedulerState, sequence: Sequence, step: PlannedStep) -> bool:
    """Give a waiting sequence its blocks, and see to a free row; False if there is no room.

    Outputs whose readers stall hold up nobody: they give way, unless they have a higher priority.
    """
    while True:
        # Each running sequence may need a block before the newcomer has had its first step.
        if state.running.has_free_row and state.kv_cache.admit(
            sequence, step, headroom=len(state.running)
        ):
            return True
        paused = [
            other
            for other in state.running.landed()
            if other.is_paused
            and other.last_step_id != step.step_id
            and other.order[0] >= sequence.order[0]
        ]
        if not paused:
            return False
        state.preempt(paused[-1])


def _is_ready(state: SchedulerState, sequence: Sequence) -> bool:
    """Whether a sequence from the waiting queue could be computed if there is room."""
    if sequence.status is not SequenceStatus.WAITING:
        # Forked in this step.
        return False
    if sequence.num_expected_tokens >= sequence.token_limit:
        return False
    return state.last_step_in_flight(sequence) is None


def _start(state: SchedulerState, sequence: Sequence, step: PlannedStep, now_ns: int) -> None:
    """Give a sequence that has its blocks a row."""
    request = sequence.request
    state.start(sequence)
    step.added.append(sequence)
    if request.started_ns is None:
        state.requests.leave_queue(request, now_ns)
        request.num_cached_tokens = min(sequence.num_prefix_tokens, request.num_prompt_tokens)
        state.stats.num_prompt_tokens += request.num_prompt_tokens
        state.stats.num_cached_tokens += request.num_cached_tokens


def _compute(
    state: SchedulerState, sequence: Sequence, num_new_tokens: int, step: PlannedStep
) -> None:
    """Put tokens of a sequence that has room for them into the step."""
    sequence.num_computed_tokens += num_new_tokens
    sequence.last_step_id = step.step_id
    needs_sample = sequence.num_computed_tokens == sequence.num_expected_tokens
    step.add(sequence, num_new_tokens, needs_sample=needs_sample)
    state.kv_cache.register(sequence, step)
    if not needs_sample:
        return
    sequence.num_expected_tokens += 1
    if sequence.num_computed_tokens == sequence.request.num_prompt_tokens:
        _fork(state, sequence, step)


def _fork(state: SchedulerState, source: Sequence, step: PlannedStep) -> None:
    """Let outputs of the request that have not begun share the prompt that the source completes.

    As many as there are rows for; the others find the prompt in the prefix cache later. None has
    begun beside the source: a prompt that is not completed takes all that the step has for prompts.
    """
    for sibling in source.request.sequences:
        if not state.running.has_free_row:
            break
        if not sibling.output_token_ids and _is_ready(state, sibling):
            state.kv_cache.fork(source, sibling)
            state.start(sibling)
            sibling.last_step_id = step.step_id
            sibling.num_expected_tokens += 1
            step.forks.append((source, sibling))


def _let_coast(state: SchedulerState, sequence: Sequence) -> None:
    """Take no decision on a planned sequence while its next slots are there and its own."""
    until = min(sequence.num_writable_tokens, sequence.token_limit - 1)
    num_steps = until - sequence.num_computed_tokens
    if num_steps > 0:
        request = sequence.request
        is_to_end = until + 1 == request.num_prompt_tokens + request.max_output_tokens
        state.running.coast(sequence, num_steps, is_to_end=is_to_end)
