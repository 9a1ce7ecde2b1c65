"""Applies a StepResult: tokens to their sequences, ends, errors, and blocks that became final.

A result changes nothing unless it is the one that is due and fits its plan in every column.
"""

from collections.abc import Container, Iterable

from octavo.v1 import common_pb2, step_pb2

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
    _check(step, result, state.config.vocab_size)
    state.in_flight.popleft()
    samplers: list[Sequence] = step.samplers
    if result.errors:
        failed = _fail(state, step, result.errors, now_ns)
        samplers = [sequence for sequence in samplers if sequence not in failed]
    state.kv_cache.seal(step)
    _accept(state, samplers, result.token_ids, step.voided, now_ns)


def _is_due(state: SchedulerState, result: step_pb2.StepResult) -> bool:
    """Return whether the result is that of the oldest plan in flight; raises if it overtook it."""
    oldest, newest = state.in_flight[0].step_id, state.in_flight[-1].step_id
    if result.epoch != state.config.epoch or not oldest <= result.step_id <= newest:
        return False
    if result.step_id != oldest:
        raise BadResult(f"the result of step {result.step_id} came before that of step {oldest}")
    return True


def _check(step: PlannedStep, result: step_pb2.StepResult, vocab_size: int) -> None:
    """Raise BadResult unless the result's columns are those that the plan asked for."""
    rows = step.rows + step.fork_rows
    num_tokens = step.needs_sample + [1] * len(step.forks)
    if result.row != rows:
        raise BadResult(f"step {step.step_id} has rows {rows}, its result has {result.row}")
    for error in result.errors:
        if error.row not in rows:
            raise BadResult(f"step {step.step_id} has no row {error.row}, which is said to fail")
        num_tokens[rows.index(error.row)] = 0
    if result.num_tokens != num_tokens:
        raise BadResult(
            f"step {step.step_id} brings {num_tokens} tokens, its result has {result.num_tokens}"
        )
    if result.num_computed_tokens != step.num_new_tokens + [0] * len(step.forks):
        raise BadResult(f"step {step.step_id}: num_computed_tokens is not what was planned")
    if len(result.token_ids) != sum(num_tokens):
        raise BadResult(
            f"step {step.step_id} brings {sum(num_tokens)} tokens, token_ids has"
            f" {len(result.token_ids)}"
        )
    if result.token_ids and max(result.token_ids) >= vocab_size:
        raise BadResult(
            f"step {step.step_id} brings token {max(result.token_ids)}; there are {vocab_size}"
        )


def _fail(
    state: SchedulerState,
    step: PlannedStep,
    errors: Iterable[step_pb2.RowError],
    now_ns: int,
) -> Container[Sequence]:
    """End the sequences that failed, which are returned; begin those again that built on them."""
    in_row = dict(zip(step.rows, step.sequences, strict=True))
    siblings = [sibling for _, sibling in step.forks]
    in_row.update(zip(step.fork_rows, siblings, strict=True))
    messages = {in_row[error.row]: error.message for error in errors}
    for sequence in _untrusted(state, step, messages):
        if sequence.status is not _FINISHED:
            state.roll_back(sequence)
            if sequence in messages:
                reason = common_pb2.FINISH_REASON_ERROR
                state.finish(sequence, reason, now_ns, error=messages[sequence])
    return messages


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


def _accept(
    state: SchedulerState,
    samplers: list[Sequence],
    token_ids: Iterable[int],
    voided: Container[Sequence],
    now_ns: int,
) -> None:
    """Append each sampled token to its sequence, and end those that it ends."""
    num_accepted = 0
    for sequence, token_id in zip(samplers, token_ids, strict=True):
        if sequence.status is _FINISHED or (voided and sequence in voided):
            continue
        num_accepted += 1
        request = sequence.request
        output = sequence.output_token_ids
        position = len(output)
        output.append(token_id)
        request.new_tokens.append((request.key, sequence.output_index, position, token_id))
        if request.first_token_ns is None:
            request.first_token_ns = now_ns
        if token_id in request.stop_token_ids or position + 1 == request.max_output_tokens:
            state.finish_complete(sequence, now_ns)
    state.stats.num_generated_tokens += num_accepted
    state.stats.num_discarded_tokens += len(samplers) - num_accepted
