"""The commands that the documents show: fenced blocks, and inline code that calls a program."""

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# A picture is `text`. A block without a language would hide a command from the tests.
LANGUAGES = ("bash", "python", "proto", "text", "yaml")

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`([^`\n]+)`")
_PROGRAMS = (
    "buf",
    "curl",
    "docker compose",
    "make",
    "npm",
    "octavo",
    "pip",
    "pytest",
    "python",
    "source",
)
# A program alone is a word about it, not a command.
_CALL = re.compile(rf"(\.venv/bin/)?({'|'.join(_PROGRAMS)}) .+")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block."""

    language: str
    text: str
    place: str
    """File and line."""


@dataclass(frozen=True, slots=True)
class Command:
    """What a reader would type, or save as a Python file and run."""

    text: str
    is_python: bool
    place: str

    @property
    def name(self) -> str:
        """The first line, which is the whole of most commands."""
        return self.text.partition("\n")[0].removesuffix("\\").rstrip()


def documents() -> list[Path]:
    """Return every Markdown file that git knows or would add."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", "*.md"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / name for name in sorted(listed.stdout.split("\0")) if (ROOT / name).is_file()]


def blocks(document: Path) -> Iterator[Block]:
    text = document.read_text()
    for match in _BLOCK.finditer(text):
        yield Block(match[1], match[2].strip("\n"), _place(document, text, match))


def commands(document: Path) -> Iterator[Command]:
    for block in blocks(document):
        if block.language in ("bash", "python"):
            yield Command(block.text, block.language == "python", block.place)
    # As many lines as before, so that places stay true.
    prose = _BLOCK.sub(lambda match: "\n" * match[0].count("\n"), document.read_text())
    for match in _INLINE.finditer(prose):
        if _CALL.fullmatch(match[1]):
            yield Command(match[1], False, _place(document, prose, match))


def _place(document: Path, text: str, match: re.Match[str]) -> str:
    line = text.count("\n", 0, match.start()) + 1
    return f"{document.relative_to(ROOT)}:{line}"
