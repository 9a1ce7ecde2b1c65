"""octavo.terminal: what one then sees, as a terminal shows it that knows cursor movements only."""

import io
import random
import re
import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octavo.terminal import WordWrap, has_color


def screen(written: str) -> list[str]:
    """Return the lines of a terminal without an edge."""
    lines, column = [""], 0
    for part in re.findall(r"\x1b\[\d*[DK]|[^\x1b]", written):
        if part == "\n":
            lines.append("")
            column = 0
        elif part.endswith("D") and len(part) > 1:
            column -= int(part[2:-1])
            assert column >= 0
        elif part == "\x1b[K":
            lines[-1] = lines[-1][:column]
        else:
            lines[-1] = lines[-1][:column] + part
            column += 1
    return lines


@given(
    st.lists(st.text("abc", min_size=1, max_size=12), max_size=30).map(" ".join),
    st.integers(2, 20),
    st.randoms(use_true_random=False),
)
def test_lines_are_those_of_textwrap_however_the_text_is_cut(
    text: str, columns: int, draw: random.Random
) -> None:
    wrap, written, rest = WordWrap(), "", text
    while rest:
        cut = draw.randint(1, 5)
        written += wrap.wrap(rest[:cut], columns)
        rest = rest[cut:]
    shown = screen(written)
    assert all(len(line) < columns for line in shown)
    # A word longer than a line is cut by both, but textwrap begins it on the line before.
    if all(len(word) < columns for word in text.split()):
        assert [line.rstrip() for line in shown] == (textwrap.wrap(text, columns - 1) or [""])


def test_lines_of_the_model_stay_and_wide_characters_take_two_columns() -> None:
    assert screen(WordWrap().wrap("one\n\ntwo", 80)) == ["one", "", "two"]
    assert screen(WordWrap().wrap("日本語日本語", 8)) == ["日本語", "日本語"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "variables", "expected"),
    [
        (Terminal(), {}, True),
        (Terminal(), {"NO_COLOR": "1"}, False),
        (Terminal(), {"TERM": "dumb"}, False),
        (io.StringIO(), {}, False),
    ],
)
def test_colour_is_for_terminals_that_want_it(
    monkeypatch: pytest.MonkeyPatch,
    stream: io.StringIO,
    variables: dict[str, str],
    expected: bool,
) -> None:
    for name, value in {"NO_COLOR": "", "TERM": "xterm", **variables}.items():
        monkeypatch.setenv(name, value)
    assert has_color(stream) == expected
