"""How many prompt tokens a step may hold, so that outputs under way do not stall beside prompts.

    time of a step = time of its decoding rows + prompt tokens · time of one of them

Both times are learned from the results. Whoever waits for a first token counts as much as those
who wait for their next one: each gives the prompts a share of the time that a step takes which
only decodes. One long prompt then makes pauses less than twice as long, however long it is, and a
burst of prompts is computed as fast as it can be.

Chunks beside decoding are Sarathi-Serve's (Agrawal et al., 2024); there the budget is fixed.
"""

from octavo.v1 import step_pb2

from .config import SchedulerConfig
from .planned_step import PlannedStep

_SHARE = 0.7
"""Time for prompts, for each that waits, in times of a step without. A long prompt alone then makes
pauses 1.7 times as long, and takes 1.7 / 0.7 times as long itself."""

_WEIGHT = 0.5
"""Of the last step that only decoded in what is known of such."""

_PROMPT_WEIGHT = 0.25
"""Of the last step with prompt tokens, if all have equally many: more of them weigh more."""

_MAX_SURPRISE = 2.0
"""A step that took longer than so many times what was expected was held up by something else."""

_MIN_PROMPT_TOKENS = 4
"""Prompts progress, whatever they cost. Each chunk reads all KV before it: fewer tokens would cost
hardly less time, and the prompt as much more as it has more chunks."""

_MEASURED_EVERY = 32
"""Steps: where prompts never end, one in so many only decodes, so that its time stays known."""


class StepCost:
    """What steps take on this device, in nanoseconds. Owned by SchedulerState.

    Until a device has told its times, and where no row decodes, a step holds what it can.
    """

    def __init__(self, config: SchedulerConfig) -> None:
        self._max_num_batched_tokens = config.max_num_batched_tokens
        # Bit length of the number of rows → steps with about so many rows that only decode.
        self._decode_ns: dict[int, float] = {}
        # Over the last steps with prompt tokens, each weighing less than the one after it.
        self._prompt_ns = 0.0
        self._num_prompt_tokens = 0.0

    def observe(self, step: PlannedStep, timings: step_pb2.StepTimings) -> None:
        """Learn from the result of a step."""
        step_ns = timings.stage_ns + timings.copy_ns + timings.forward_ns + timings.sample_ns
        if not step_ns:
            return
        num_decoding = len(step.sequences) - len(step.chunks)
        if step.num_prompt_tokens:
            self._observe_prompts(num_decoding, step.num_prompt_tokens, step_ns)
        else:
            size = num_decoding.bit_length()
            known_ns = self._decode_ns.get(size, step_ns)
            news_ns = min(step_ns, _MAX_SURPRISE * known_ns) - known_ns
            self._decode_ns[size] = known_ns + _WEIGHT * news_ns

    def _observe_prompts(self, num_decoding: int, num_prompt_tokens: int, step_ns: int) -> None:
        prompt_ns = step_ns - self._time_of_decoding(num_decoding)
        # While a step waits for memory some tokens are free, but not as many as one likes: each is
        # taken to cost at least a quarter of what the step's tokens do on average.
        least_ns = step_ns * num_prompt_tokens / (num_decoding + num_prompt_tokens) / 4
        self._prompt_ns += max(prompt_ns, least_ns) - _PROMPT_WEIGHT * self._prompt_ns
        self._num_prompt_tokens += num_prompt_tokens - _PROMPT_WEIGHT * self._num_prompt_tokens

    @property
    def _token_ns(self) -> float:
        """What a prompt token takes; 0: unknown."""
        return self._prompt_ns / self._num_prompt_tokens if self._num_prompt_tokens else 0.0

    def _time_of_decoding(self, num_decoding: int) -> float:
        """Return what a step with so many rows takes that only decodes; 0: unknown, or no rows."""
        if not num_decoding or not self._decode_ns:
            return 0.0
        size = num_decoding.bit_length()
        if size in self._decode_ns:
            return self._decode_ns[size]
        nearest = min(self._decode_ns, key=lambda known: abs(known - size))
        # A row takes hardly less than a prompt token.
        return max(self._decode_ns[nearest], num_decoding * self._token_ns)

    def prompt_budget(self, num_decoding: int, num_waiting: int) -> int:
        """Return the most prompt tokens for a step: at least _MIN_PROMPT_TOKENS.

        Args:
            num_decoding: rows that get their next token in the step.
            num_waiting: sequences that wait, for a row or with a prompt that is not completed.
        """
        decode_ns = self._time_of_decoding(num_decoding)
        if not decode_ns or not self._num_prompt_tokens:
            return self._max_num_batched_tokens
        num_tokens = int(_SHARE * decode_ns * num_waiting / self._token_ns)
        num_left = self._max_num_batched_tokens - num_decoding
        return max(_MIN_PROMPT_TOKENS, min(num_tokens, num_left))

    def wants_decoding_only(self, step_id: int) -> bool:
        """Whether the step, if it has rows that decode, should hold no prompts, to be measured."""
        return bool(self._num_prompt_tokens) and step_id % _MEASURED_EVERY == 0
