"""A small OpenAI server, of its own making, that the client commands are tried against."""

import contextlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.octavo.http_server import QuietHandler, serving


@dataclass
class FakeOpenAI:
    """What the server was asked, and how it answers.

    Attributes:
        words: the chunks of each answer.
        requests: the bodies, in the order of their arrival.
        authorizations: the header of each request, the list of models included.
        refuse: a status to answer with, and the message.
        sends_usage: whether the last event has the usage, as OpenAI's has when it is asked for.
        breaks_off: whether the connection is cut after the first chunk.
    """

    words: tuple[str, ...] = ("Paris", ", of", " course")
    requests: list[dict[str, Any]] = field(default_factory=list)
    authorizations: list[str | None] = field(default_factory=list)
    refuse: tuple[int, str] | None = None
    sends_usage: bool = True
    breaks_off: bool = False
    most_at_once: int = 0
    url: str = ""

    @contextlib.contextmanager
    def serving(self) -> Iterator["FakeOpenAI"]:
        with serving(_handler(self)) as self.url:
            yield self


def _handler(fake: FakeOpenAI) -> type[QuietHandler]:
    lock = threading.Lock()
    running = [0]

    class Handler(QuietHandler):
        def do_GET(self) -> None:
            fake.authorizations.append(self.headers["Authorization"])
            self._json(200, {"data": [{"id": "small"}, {"id": "large"}]})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                running[0] += 1
                fake.most_at_once = max(fake.most_at_once, running[0])
                fake.requests.append(body)
                fake.authorizations.append(self.headers["Authorization"])
            try:
                self._answer(body)
            finally:
                with lock:
                    running[0] -= 1

        def _answer(self, body: dict[str, Any]) -> None:
            if fake.refuse:
                status, message = fake.refuse
                self._json(status, {"error": {"message": message}})
                return
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            if fake.breaks_off:
                self.send_header("Content-Length", "1000000")
            self.end_headers()
            for word in fake.words:
                is_chat = self.path == "/v1/chat/completions"
                content = {"delta": {"content": word}} if is_chat else {"text": word}
                self._event({"choices": [{"index": 0, "finish_reason": None, **content}]})
                if fake.breaks_off:
                    return
            if fake.sends_usage:
                usage = {"prompt_tokens": 7, "completion_tokens": len(fake.words)}
                self._event({"choices": [], "usage": usage})
            self.wfile.write(b"data: [DONE]\n\n")

        def _event(self, event: dict[str, Any]) -> None:
            self.wfile.write(b"data: " + json.dumps(event).encode() + b"\n\n")

        def _json(self, status: int, value: dict[str, Any]) -> None:
            content = json.dumps(value).encode()
            self.answer(status, content, {"Content-Type": "application/json"})

    return Handler
