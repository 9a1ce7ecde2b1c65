"""Prints a model's answer while it comes."""

import re
import shutil
from collections.abc import Iterable
from typing import TextIO

from .openai_client import Chunk
from .terminal import WordWrap

# A model that has read escape sequences can write them; they would steer the reader's terminal.
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def print_answer(chunks: Iterable[Chunk], stream: TextIO) -> str:
    """Write each chunk's text at once, end with a new line, and return the whole.

    Ctrl-C ends the answer and not the program: what there is of it is returned.
    """
    parts: list[str] = []
    word_wrap = WordWrap() if stream.isatty() else None
    try:
        for chunk in chunks:
            parts.append(chunk.text)
            text = chunk.text
            if word_wrap:
                columns = shutil.get_terminal_size().columns
                text = word_wrap.wrap(_CONTROLS.sub("", text), columns)
            stream.write(text)
            stream.flush()
    except KeyboardInterrupt:
        pass
    finally:
        if parts:
            stream.write("\n")
            stream.flush()
    return "".join(parts)
