"""`octavo chat`: a conversation with a running server, in the terminal or from a pipe."""

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from cyclopts import Parameter

from .answer_printer import print_answer
from .client_settings import GenerationSettings
from .openai_client import OpenAIClient, ServerError
from .terminal import forgive_encoding, has_color

_HELP = """\
/system TEXT  set the system message (without TEXT: remove it) and begin again
/reset        forget the conversation, keep the system message
/help         this list
/exit         leave; Ctrl-D does, too. Ctrl-C ends an answer.
"""

_PROMPT = "> "
# Between 1 and 2 stands what readline must not count as characters: bold cyan, and its end.
_COLORED_PROMPT = "\x01\x1b[1;36m\x02> \x01\x1b[0m\x02"


@dataclass(frozen=True, kw_only=True)
class ChatSettings(GenerationSettings):
    """Flags of `octavo chat`."""

    system: str | None = None
    """System message that the conversation begins with."""


class Conversation:
    """What was said so far, and the commands that change it."""

    def __init__(self, client: OpenAIClient, model: str, settings: ChatSettings) -> None:
        self._client = client
        self._model = model
        self._sampling = settings.sampling()
        self._system = settings.system
        self._turns: list[dict[str, str]] = []

    def say(self, line: str) -> None:
        """Take one line of the user's: a message, or a command that begins with a slash.

        Raises ServerError; the message is then forgotten, and the conversation can go on.
        """
        command, _, argument = line.partition(" ")
        match command:
            case "/system":
                self._system = argument.strip() or None
                self._turns.clear()
                change = "is set" if self._system else "is removed"
                _note(f"The system message {change}; the conversation begins again.")
            case "/reset":
                self._turns.clear()
                _note("The conversation begins again.")
            case "/help":
                sys.stderr.write(_HELP)
            case _ if command.startswith("/") and command[1:].isalpha():
                sys.stderr.write(f"There is no command {command}. The commands are\n{_HELP}")
            case _:
                self._ask(line)

    def _ask(self, text: str) -> None:
        """Send the conversation with `text` at its end, and keep both if an answer comes.

        One that Ctrl-C ended is kept as far as it came.
        """
        question = {"role": "user", "content": text}
        first = [{"role": "system", "content": self._system}] if self._system else []
        messages = [*first, *self._turns, question]
        body = {"model": self._model, "messages": messages, **self._sampling}
        answer = print_answer(self._client.stream("chat/completions", body), sys.stdout)
        if answer:
            self._turns += [question, {"role": "assistant", "content": answer}]


def main(*, settings: Annotated[ChatSettings, Parameter(name="*")] = ChatSettings()) -> int:
    """Talk to a running server. From a pipe, each line is a message."""
    forgive_encoding()
    try:
        with OpenAIClient(settings) as client:
            model = settings.model or client.first_model()
            greeting = f"{model} at {settings.url}. /help lists the commands."
            return _converse(Conversation(client, model, settings), _lines(greeting))
    except ServerError as error:
        print(f"octavo: {error}", file=sys.stderr)
        return 1


def _converse(conversation: Conversation, lines: Iterator[str]) -> int:
    """Go through the lines; return the exit status, 1 if one has failed."""
    status = 0
    for line in lines:
        if line == "/exit":
            break
        try:
            conversation.say(line)
        except ServerError as error:
            print(f"octavo: {error}", file=sys.stderr)
            status = 1
    return status


def _note(text: str) -> None:
    """Say what a command did, to somebody who sits there."""
    if sys.stdin.isatty():
        print(text, file=sys.stderr)


def _lines(greeting: str) -> Iterator[str]:
    """Yield the user's lines that say something; with a prompt where somebody types them."""
    if not sys.stdin.isatty():
        yield from filter(None, (line.strip() for line in sys.stdin))
        return
    # With it, input() can edit a line and recall earlier ones.
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401
    print(greeting)
    prompt = _COLORED_PROMPT if has_color(sys.stdout) else _PROMPT
    while True:
        try:
            print()
            line = input(prompt).strip()
        except (EOFError, KeyboardInterrupt):
            print()
            return
        if line:
            yield line
