"""What a step has for prompts, against counting token by token."""

from hypothesis import given
from hypothesis import strategies as st

from octavo.scheduler.prompt_budget import PromptBudget


def num_affordable(budget: PromptBudget, context: int, left_ns: float) -> int:
    """Return how many tokens the time is enough for; one after n others has context + n pairs."""
    num_tokens = 0
    while left_ns >= 0 and num_tokens <= budget.num_tokens:
        left_ns -= budget.token_ns + budget.pair_ns * (context + num_tokens)
        num_tokens += left_ns >= 0
    return num_tokens


@given(
    time_ns=st.floats(0.0, 1e9),
    token_ns=st.floats(1e3, 1e7),
    pair_ns=st.floats(0.0, 1e3),
    context=st.integers(0, 100_000),
    num_used=st.integers(0, 100),
)
def test_tokens_are_those_that_the_time_is_enough_for(
    time_ns: float, token_ns: float, pair_ns: float, context: int, num_used: int
) -> None:
    budget = PromptBudget(512, time_ns, token_ns, pair_ns)
    # Of another prompt, from its beginning.
    num_used_pairs = num_used**2 / 2
    left_ns = time_ns - num_used * token_ns - num_used_pairs * pair_ns
    expected = min(num_affordable(budget, context, left_ns), 512 - num_used)
    least = max(4 - num_used, 0)
    # The n-th token is counted with n - 1/2 pairs there, with n - 1 here.
    assert (
        abs(budget.num_tokens_left(num_used, num_used_pairs, context) - max(expected, least)) <= 1
    )


def test_without_times_a_step_holds_what_it_can() -> None:
    assert PromptBudget(512).num_tokens_left(12, 72.0, 100_000) == 500


def test_a_step_without_room_for_prompts_has_no_least() -> None:
    assert PromptBudget(0).num_tokens_left(0, 0.0, 0) == 0
