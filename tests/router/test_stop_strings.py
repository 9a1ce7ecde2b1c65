"""Stop strings in text cut anywhere, against a search from the left, character by character."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octavo.router.stop_strings import StopStringAutomaton, StopStringMatcher


def naive_search(text: str, stop_strings: Sequence[str]) -> tuple[str, str | None]:
    """Return what is shown, and the stop string that ends it: the first to end, the longest."""
    for end in range(1, len(text) + 1):
        matched = [stop for stop in stop_strings if text[:end].endswith(stop)]
        if matched:
            longest = max(matched, key=len)
            return text[: end - len(longest)], longest
    return text, None


def naive_hold(text: str, stop_strings: Sequence[str]) -> int:
    """Return how many characters at the end may become a stop string."""
    return max(
        (
            length
            for stop in stop_strings
            for length in range(1, len(stop))
            if text.endswith(stop[:length])
        ),
        default=0,
    )


# Few letters, so that stop strings overlap one another and themselves.
letters = st.sampled_from("abc")
stops = st.lists(st.text(letters, min_size=1, max_size=6), min_size=1, max_size=4)
pieces = st.lists(st.text(letters, max_size=5), max_size=12)


@given(stops, pieces)
def test_where_text_is_cut_makes_no_difference(stop_strings: list[str], parts: list[str]) -> None:
    matcher = StopStringMatcher(StopStringAutomaton(stop_strings))
    shown = "".join(matcher.feed(part) for part in parts) + matcher.flush()
    assert (shown, matcher.matched) == naive_search("".join(parts), stop_strings)


@given(stops, pieces)
def test_holds_back_only_what_may_become_a_stop_string(
    stop_strings: list[str], parts: list[str]
) -> None:
    matcher = StopStringMatcher(StopStringAutomaton(stop_strings))
    text = shown = ""
    for part in parts:
        text += part
        shown += matcher.feed(part)
        if matcher.matched is not None:
            break
        assert shown == text[: len(text) - naive_hold(text, stop_strings)]


@pytest.mark.parametrize(
    ("stop_strings", "parts", "shown", "matched"),
    [
        (["\n\n"], ["a\n", "\nb"], "a", "\n\n"),
        (["\n\n"], ["a\n", "b\n"], "a\nb\n", None),
        (["aab"], ["aa", "ab"], "a", "aab"),
        (["abcd", "bc"], ["ab", "cd"], "a", "bc"),
        (["bc", "abc"], ["abc"], "", "abc"),
        (["é😀"], ["caf", "é", "😀!"], "caf", "é😀"),
    ],
)
def test_examples(
    stop_strings: list[str], parts: list[str], shown: str, matched: str | None
) -> None:
    matcher = StopStringMatcher(StopStringAutomaton(stop_strings))
    assert "".join(matcher.feed(part) for part in parts) + matcher.flush() == shown
    assert matcher.matched == matched


def test_two_outputs_do_not_disturb_one_another() -> None:
    automaton = StopStringAutomaton(["stop"])
    first, second = StopStringMatcher(automaton), StopStringMatcher(automaton)
    assert first.feed("st") == second.feed("") == ""
    assert second.feed("op") == "op"
    assert (first.feed("op"), first.matched, second.matched) == ("", "stop", None)
