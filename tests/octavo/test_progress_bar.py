"""octavo.progress_bar: seen where somebody watches."""

import io

import pytest

from octavo.progress_bar import progress_bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("stream", [Terminal(), io.StringIO()], ids=["terminal", "file"])
def test_a_bar_is_for_terminals(monkeypatch: pytest.MonkeyPatch, stream: io.StringIO) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stderr", stream)
    with progress_bar("prompts", 16) as advance:
        for _ in range(16):
            advance()
    shown = stream.getvalue()
    assert ("prompts" in shown, "16/16" in shown) == (stream.isatty(),) * 2
    assert stream.isatty() or not shown
