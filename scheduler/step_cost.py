"""How much of prompts a step may hold, so that outputs under way do not stall beside them.

    time of a step = time of its decoding rows
                   + time of a prompt token · prompt tokens
                   + time of a pair · Σ (prompt token · tokens before it)

All three times are learned from the results. Whoever waits for a first token counts as much as
those who wait for their next one: each gives the prompts a share of the time that a step takes
which only decodes. One long prompt then makes pauses less than twice as long, however long it is,
and a burst of prompts is computed as fast as it can be. docs/decisions/014-long-prompts.md says
what share is possible at all.

Chunks beside decoding are Sarathi-Serve's (Agrawal et al., 2024); there the budget is fixed.

The times of a token and of a pair are corrected by what a step's time differs from the expected,
each by the part that it has in it: least mean squares (Widrow and Hoff, 1960), in relative terms.
Short prompts tell of tokens, long contexts of pairs; what no step tells of stays as it was, and all
stays positive.
"""

from collections import deque

from octavo.v1 import step_pb2

from .config import SchedulerConfig
from .planned_step import PlannedStep
from .prompt_budget import PromptBudget

_SHARE = 0.7
"""Time for prompts, for each that waits, in times of a step without. A long prompt alone then makes
pauses 1.7 times as long, and takes 1.7 / 0.7 times as long itself."""

_MAX_SURPRISE = 0.3
"""What differs from the expected by a larger part of it counts as so much: it was held up, and is
no measure, unless it is so again and again."""

_GUESSED_CONTEXT = 4096
"""Until long prompts tell: the tokens before a token that make it take twice as long."""

_NUM_MEASURED = 3
"""The last steps that only decoded, of which the middle one counts. Few, because rows take longer
with each token that they have: what is not known of that counts as the prompt's, whose parts become
ever smaller for it."""

_MEASURED_EVERY = 32
"""Steps: where prompts never end, one in so many only decodes, so that its time stays known."""


def step_ns(timings: step_pb2.StepTimings) -> int:
    """Return how much later a step's result came for all that was done for it."""
    staging_ns = timings.stage_ns - timings.overlapped_ns
    return staging_ns + timings.copy_ns + timings.forward_ns + timings.sample_ns


class StepCost:
    """What steps take on this device, in nanoseconds. Owned by SchedulerState.

    Until a device has told its times, and where no row decodes, a step holds what it can.
    """

    def __init__(self, config: SchedulerConfig) -> None:
        self._max_num_batched_tokens = config.max_num_batched_tokens
        # Bit length of the number of rows → the last steps with about so many that only decoded.
        self._decode_ns: dict[int, deque[int]] = {}
        # 0: unknown.
        self._token_ns = 0.0
        self._pair_ns = 0.0

    def observe(self, step: PlannedStep, timings: step_pb2.StepTimings) -> None:
        """Learn from the result of a step."""
        taken_ns = step_ns(timings)
        if not taken_ns:
            return
        num_decoding = len(step.sequences) - len(step.chunks)
        if step.num_prompt_tokens:
            self._observe_prompts(num_decoding, step, taken_ns)
        else:
            size = num_decoding.bit_length()
            self._decode_ns.setdefault(size, deque(maxlen=_NUM_MEASURED)).append(taken_ns)

    def _observe_prompts(self, num_decoding: int, step: PlannedStep, taken_ns: int) -> None:
        num_tokens, num_pairs = step.num_prompt_tokens, step.num_prompt_pairs
        if not self._token_ns:
            num_alike = num_decoding + num_tokens + num_pairs / _GUESSED_CONTEXT
            self._token_ns = taken_ns / num_alike
            self._pair_ns = self._token_ns / _GUESSED_CONTEXT
        tokens_ns, pairs_ns = self._token_ns * num_tokens, self._pair_ns * num_pairs
        expected_ns = self._time_of_decoding(num_decoding) + tokens_ns + pairs_ns
        surprise = _surprise(taken_ns, expected_ns)
        self._token_ns *= 1 + surprise * tokens_ns / expected_ns
        self._pair_ns *= 1 + surprise * pairs_ns / expected_ns

    def _time_of_decoding(self, num_decoding: int) -> float:
        """Return what a step with so many rows takes that only decodes; 0: unknown, or no rows."""
        if not num_decoding or not self._decode_ns:
            return 0.0
        size = num_decoding.bit_length()
        nearest = min(self._decode_ns, key=lambda known: abs(known - size))
        last_ns = sorted(self._decode_ns[nearest])
        # The middle one: a step that was held up by something else is no measure.
        decode_ns = last_ns[len(last_ns) // 2]
        # A row takes hardly less than a prompt token.
        return decode_ns if nearest == size else max(decode_ns, num_decoding * self._token_ns)

    def prompt_budget(self, num_decoding: int, num_waiting: int) -> PromptBudget:
        """Return what a step has for prompts.

        Args:
            num_decoding: rows that get their next token in the step.
            num_waiting: sequences that wait, for a row or with a prompt that is not completed.
        """
        decode_ns = self._time_of_decoding(num_decoding)
        if not decode_ns or not self._token_ns:
            return PromptBudget(self._max_num_batched_tokens)
        return PromptBudget(
            num_tokens=max(1, self._max_num_batched_tokens - num_decoding),
            time_ns=_SHARE * decode_ns * num_waiting,
            token_ns=self._token_ns,
            pair_ns=self._pair_ns,
        )

    def wants_decoding_only(self, step_id: int) -> bool:
        """Whether the step, if it has rows that decode, should hold no prompts, to be measured."""
        return bool(self._token_ns) and step_id % _MEASURED_EVERY == 0


def _surprise(measured_ns: float, expected_ns: float) -> float:
    """Return by what part of the expected the measured differs from it, within limits."""
    return min(max(measured_ns / expected_ns - 1, -_MAX_SURPRISE), _MAX_SURPRISE)
