"""What a terminal gets and a pipe does not: colour, and lines that break between words."""

import io
import os
import sys
from typing import TextIO

from rich.cells import cell_len

_TAB = 8


def has_color(stream: TextIO) -> bool:
    """Return whether colours are welcome; https://no-color.org says how to refuse them."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def forgive_encoding() -> None:
    """Show a replacement for what is no text, or cannot be shown, where Python would give up."""
    for stream in (sys.stdin, sys.stdout):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


class WordWrap:
    """Breaks a text that comes in pieces, each of which is to be shown at once.

    A word that turns out too long for the line it was begun on is taken back and begun again on
    the next. Nothing is written into the last column: there, terminals differ in where the cursor
    then is.
    """

    def __init__(self) -> None:
        self._column = 0
        self._word = ""

    def wrap(self, text: str, columns: int) -> str:
        """Return what to write, after all that was written before, for `text` to appear."""
        width = max(columns - 1, 1)
        return "".join(self._wrap_character(character, width) for character in text)

    def _wrap_character(self, character: str, width: int) -> str:
        if character == "\n":
            self._column, self._word = 0, ""
            return character
        cells = _TAB - self._column % _TAB if character == "\t" else cell_len(character)
        fits = self._column + cells <= width
        if character.isspace():
            self._word = ""
            self._column = self._column + cells if fits else 0
            return character if fits else "\n"
        break_line = "" if fits else self._break_line()
        self._column += cells
        self._word += character
        return break_line + character

    def _break_line(self) -> str:
        """Return what moves the word that has begun to a new line, if it is not a line itself."""
        cells = cell_len(self._word)
        if not cells or cells == self._column:
            self._column, self._word = 0, ""
            return "\n"
        self._column = cells
        return f"\x1b[{cells}D\x1b[K\n{self._word}"
