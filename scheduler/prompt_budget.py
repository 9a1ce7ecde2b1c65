"""What one step has for prompts: tokens, and time, of which a long context takes more."""

from dataclasses import dataclass
from math import inf, sqrt

_MIN_PROMPT_TOKENS = 4
"""Prompts progress, whatever they cost. Each chunk reads all KV before it: fewer tokens would cost
hardly less time, and the prompt as much more as it has more chunks."""


@dataclass(frozen=True, slots=True)
class PromptBudget:
    """Made by StepCost, which knows the times.

    Time goes by tokens, and by pairs of a prompt token and a token before it.
    """

    num_tokens: int
    """The most, whatever they take."""
    time_ns: float = inf
    token_ns: float = 0.0
    pair_ns: float = 0.0

    def num_tokens_left(self, num_used: int, num_used_pairs: float, context: int) -> int:
        """Return how many tokens a prompt may have in the step.

        Args:
            num_used: prompt tokens that the step has already.
            num_used_pairs: their pairs.
            context: tokens of the prompt that are computed.
        """
        num_left = self.num_tokens - num_used
        if self.time_ns == inf:
            return num_left
        left_ns = self.time_ns - self.token_ns * num_used - self.pair_ns * num_used_pairs
        num_affordable = int(self._solve(max(left_ns, 0.0), context))
        return min(num_left, max(num_affordable, _MIN_PROMPT_TOKENS - num_used))

    def _solve(self, time_ns: float, context: int) -> float:
        """Return n so that n · token_ns + (n · context + n² / 2) · pair_ns = time_ns."""
        next_ns = self.token_ns + self.pair_ns * context
        return 2 * time_ns / (next_ns + sqrt(next_ns * next_ns + 2 * self.pair_ns * time_ns))
