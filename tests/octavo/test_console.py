"""octavo.console: what a person sees, and what a log collector does."""

import io
import json

from octavo.console import make_console


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_lines_carry_the_process_padded_to_one_width() -> None:
    stream = io.StringIO()
    console = make_console("console", stream, ("serve", "scheduler"))
    console.stage("serve", "model found", 0.031)
    console.log("scheduler", "welcome")
    console.stage("scheduler", "listening", 1.2)
    console.say("ready")
    assert stream.getvalue().splitlines() == [
        "serve     | [ 1] model found (0.03 s)",
        "scheduler | welcome",
        "scheduler | [ 2] listening (1.20 s)",
        "ready",
    ]


def test_only_a_terminal_gets_colours() -> None:
    stream = Terminal()
    make_console("console", stream, ("serve", "scheduler")).log("serve", "hello")
    assert stream.getvalue() == "\x1b[36mserve    \x1b[0m | hello\n"


def test_json_lines_stay_one_object_each_and_name_the_process() -> None:
    stream = io.StringIO()
    console = make_console("json", stream, ("serve", "worker"))
    console.log("worker", '{"event": "loaded", "level": "info"}')
    console.log("worker", "a library's own words")
    console.log("worker", "3")
    console.stage("worker", "weights loaded", 1.5)
    console.say("ready\nin all")
    assert [json.loads(line) for line in stream.getvalue().splitlines()] == [
        {"process": "worker", "event": "loaded", "level": "info"},
        {"process": "worker", "event": "a library's own words"},
        {"process": "worker", "event": "3"},
        {"process": "worker", "stage": "weights loaded", "seconds": 1.5},
        {"process": "serve", "event": "ready\nin all"},
    ]
