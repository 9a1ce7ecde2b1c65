"""Applies a StepResult: tokens to their sequences, ends, errors, and blocks that became final.

A result changes nothing unless it is the one that is due and fits its plan in every column.
"""

from collections.abc import Container, Iterable
from itertools import compress

from octavo.v1 import common_pb2, scheduling_pb2, step_pb2

from .planned_step import PlannedStep
from .request import Sequence, SequenceStatus
from .state import SchedulerState

# Read in a loop over all rows, where the look-up in the enum would be felt.
_FINISHED = SequenceStatus.FINISHED


class BadResult(Exception):
    """A result that its plan does not allow: the worker is broken. Nothing was changed."""


def apply_result(state: SchedulerState, result: step_pb2.StepResult, now_ns: int) -> None:
    """Apply the result of the oldest plan in flight; raises BadResult.

    One of another epoch, applied before, or never asked for is counted and changes nothing else.
    """
    if not state.in_flight or not _is_due(state, result):
        state.stats.num_stale_results += 1
        return
    step = state.in_flight[0]
    failed = _failures(step, result)
    samplers, logprob_samplers = step.samplers, step.logprob_samplers
    if failed:
        samplers = [sequence for sequence in samplers if sequence not in failed]
        logprob_samplers = [sequence for sequence in logprob_samplers if sequence not in failed]
    token_ids = result.token_ids[:]
    _check_tokens(step, result, token_ids, len(samplers), state.config.vocab_size)
    _check_logprobs(step, result, len(logprob_samplers))
    state.in_flight.popleft()
    state.step_cost.observe(step, result.timings)
    if failed:
        _fail(state, step, failed, now_ns)
    state.kv_cache.seal(step)
    in_row = step.in_row() if result.prompt_logprobs else {}
    for part in result.prompt_logprobs:
        _accept_prompt_logprobs(state, in_row[part.row], part, step.voided)
    for sequence, logprobs in zip(logprob_samplers, result.logprobs, strict=True):
        if sequence not in step.voided:
            state.outputs.add_logprobs(sequence.request.router_id, logprobs)
    _accept(state, step, samplers, token_ids, now_ns)


def _is_due(state: SchedulerState, result: step_pb2.StepResult) -> bool:
    """Return whether the result is that of the oldest plan in flight; raises if it overtook it."""
    oldest, newest = state.in_flight[0].step_id, state.in_flight[-1].step_id
    if result.epoch != state.config.epoch or not oldest <= result.step_id <= newest:
        return False
    if result.step_id != oldest:
        raise BadResult(f"the result of step {result.step_id} came before that of step {oldest}")
    return True


def _failures(step: PlannedStep, result: step_pb2.StepResult) -> dict[Sequence, str]:
    """Return who failed, with the message; raises BadResult for a row that is not in the step."""
    if not result.errors:
        return {}
    in_row = step.in_row()
    for error in result.errors:
        if error.row not in in_row:
            raise BadResult(f"step {step.step_id} has no row {error.row}, which is said to fail")
    return {in_row[error.row]: error.message for error in result.errors}


def _check_tokens(
    step: PlannedStep,
    result: step_pb2.StepResult,
    token_ids: list[int],
    num_tokens: int,
    vocab_size: int,
) -> None:
    """Raise BadResult unless there are so many tokens, one for each row that sampled."""
    if len(token_ids) != num_tokens:
        raise BadResult(
            f"step {step.step_id} brings {num_tokens} tokens, its result has {len(token_ids)}"
        )
    if token_ids and max(token_ids) >= vocab_size:
        raise BadResult(
            f"step {step.step_id} brings token {max(token_ids)}; there are {vocab_size}"
        )
    if result.num_tokens or result.num_drafted_tokens:
        raise BadResult(f"step {step.step_id} has no drafts, but its result counts tokens by row")


def _check_logprobs(step: PlannedStep, result: step_pb2.StepResult, num_wanted: int) -> None:
    if len(result.logprobs) != num_wanted:
        raise BadResult(
            f"step {step.step_id} brings {num_wanted} log-probabilities, its result has"
            f" {len(result.logprobs)}"
        )
    for part in result.prompt_logprobs:
        if part.row not in step.roster.rows:
            raise BadResult(f"step {step.step_id} has no row {part.row}, whose prompt is told of")


def _fail(
    state: SchedulerState,
    step: PlannedStep,
    messages: dict[Sequence, str],
    now_ns: int,
) -> None:
    """End the sequences that failed, with these messages; begin those again that built on them."""
    for sequence in _untrusted(state, step, messages):
        if sequence.status is not _FINISHED:
            state.roll_back(sequence)
            if sequence in messages:
                reason = common_pb2.FINISH_REASON_ERROR
                state.finish(sequence, reason, now_ns, error=messages[sequence])


def _untrusted(
    state: SchedulerState, step: PlannedStep, failed: Iterable[Sequence]
) -> list[Sequence]:
    """Return, in order, all that the failed sequences' KV reached; un-hash what they filled.

    It spreads to siblings forked from a failed sequence in this step, and to sequences that began
    with a block while it was pending. The plans in flight are marked, so that no token of theirs
    is taken from an untrusted sequence.
    """
    untrusted = set(failed)
    bad_blocks = set()
    for later in (step, *state.in_flight):
        untrusted.update(reader for block, reader in later.readers if block in bad_blocks)
        untrusted.update(sibling for source, sibling in later.forks if source in untrusted)
        bad_blocks |= state.kv_cache.forget(later, untrusted)
        later.voided |= untrusted
    return sorted(untrusted, key=lambda sequence: sequence.order)


def _accept_prompt_logprobs(
    state: SchedulerState,
    sequence: Sequence,
    part: step_pb2.PromptLogprobs,
    voided: Container[Sequence],
) -> None:
    """Pass on what was not told before: after a preemption a prompt is computed again."""
    request = sequence.request
    num_told = request.next_prompt_logprob - part.first_position
    if sequence.status is _FINISHED or sequence in voided or num_told < 0:
        return
    positions = part.positions[num_told:]
    if positions:
        state.outputs.add_prompt_logprobs(
            request.router_id,
            scheduling_pb2.PromptPart(
                request_key=request.key,
                first_position=request.next_prompt_logprob,
                positions=positions,
            ),
        )
        request.next_prompt_logprob += len(positions)


def _accept(
    state: SchedulerState,
    step: PlannedStep,
    samplers: list[Sequence],
    token_ids: list[int],
    now_ns: int,
) -> None:
    """Append each sampled token to its sequence, and end those that it ends."""
    num_sampled = len(samplers)
    if step.voided:
        are_good = [sequence not in step.voided for sequence in samplers]
        samplers = [*compress(samplers, are_good)]
        token_ids = [*compress(token_ids, are_good)]
    positions = []
    for sequence, token_id in zip(samplers, token_ids, strict=True):
        output = sequence.output_token_ids
        positions.append(len(output))
        output.append(token_id)
    state.outputs.add_tokens(samplers, positions, token_ids)
    state.stats.num_generated_tokens += len(samplers)
    state.stats.num_discarded_tokens += num_sampled - len(samplers)
    for sequence in step.marked:
        if sequence.request.first_token_ns is None and sequence not in step.voided:
            sequence.request.first_token_ns = now_ns
    for sequence in _ended(state, step, samplers, token_ids):
        state.finish_complete(sequence, now_ns)


def _ended(
    state: SchedulerState, step: PlannedStep, samplers: list[Sequence], token_ids: list[int]
) -> list[Sequence]:
    """Return, in order, the sequences that their new tokens end.

    Whose last one is allowed is known from the plan; whose is a stop token, most steps rule out
    for all requests at once.
    """
    ended = {s for s in step.marked if len(s.output_token_ids) >= s.request.max_output_tokens}
    if not state.requests.stop_token_ids.isdisjoint(token_ids):
        ended.update(
            sequence
            for sequence, token_id in zip(samplers, token_ids, strict=True)
            if token_id in sequence.request.stop_token_ids
        )
    return [sequence for sequence in samplers if sequence in ended] if ended else []
