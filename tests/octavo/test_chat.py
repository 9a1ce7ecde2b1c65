"""octavo.chat and octavo.complete: a conversation, against a server of the tests' own."""

import io
from collections.abc import Iterator

import pytest

from octavo import chat, cli, complete
from octavo.answer_printer import print_answer
from octavo.chat import ChatSettings
from octavo.client_settings import GenerationSettings
from octavo.openai_client import Chunk
from tests.octavo.fake_openai import FakeOpenAI


@pytest.fixture
def server() -> Iterator[FakeOpenAI]:
    with FakeOpenAI().serving() as fake:
        yield fake


def type_lines(monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(lines) + "\n"))


def test_a_conversation_keeps_what_was_said(
    server: FakeOpenAI, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    type_lines(monkeypatch, "The capital of France?", "", "Are you sure?")
    assert chat.main(settings=ChatSettings(url=server.url, temperature=0.0)) == 0
    shown = capsys.readouterr()
    assert shown.out == "Paris, of course\nParis, of course\n" and shown.err == ""
    assert server.requests[1] == {
        "model": "small",
        "messages": [
            {"role": "user", "content": "The capital of France?"},
            {"role": "assistant", "content": "Paris, of course"},
            {"role": "user", "content": "Are you sure?"},
        ],
        "temperature": 0.0,
        "stream": True,
    }


def test_system_and_reset_begin_again(server: FakeOpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    type_lines(monkeypatch, "one", "/system Be brief.", "two", "/reset", "three", "/exit", "four")
    assert chat.main(settings=ChatSettings(url=server.url, system="Be kind.")) == 0
    said = [[turn["content"] for turn in body["messages"]] for body in server.requests]
    assert said == [["Be kind.", "one"], ["Be brief.", "two"], ["Be brief.", "three"]]


def test_an_unknown_command_lists_the_commands_and_asks_nobody(
    server: FakeOpenAI, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    type_lines(monkeypatch, "/help")
    assert chat.main(settings=ChatSettings(url=server.url)) == 0
    assert "/reset" in capsys.readouterr().err
    assert server.requests == []


def test_what_was_refused_is_told_and_forgotten(
    server: FakeOpenAI, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    server.refuse = (400, "temperature is 9; give at most 2.")
    type_lines(monkeypatch, "one", "two")
    assert chat.main(settings=ChatSettings(url=server.url)) == 1
    assert capsys.readouterr().err == "octavo: temperature is 9; give at most 2.\n" * 2
    assert len(server.requests[1]["messages"]) == 1


def test_complete_prints_the_continuation(
    server: FakeOpenAI, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = GenerationSettings(url=f"{server.url}/v1/", api_key="secret", max_tokens=3)
    assert complete.main("The capital of France is", settings=settings) == 0
    assert capsys.readouterr().out == "Paris, of course\n"
    body = {"model": "small", "prompt": "The capital of France is", "max_tokens": 3}
    assert server.requests == [{**body, "stream": True}]
    assert server.authorizations == ["Bearer secret"] * 2


def test_complete_reads_a_prompt_from_a_pipe(
    server: FakeOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    type_lines(monkeypatch, "Once upon", "a time")
    assert complete.main("-", settings=GenerationSettings(url=server.url, model="large")) == 0
    assert server.requests[0]["prompt"] == "Once upon\na time\n"
    assert server.requests[0]["model"] == "large"


def test_a_prompt_of_one_hyphen_is_the_pipe(
    server: FakeOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    type_lines(monkeypatch, "Once upon")
    monkeypatch.setattr("sys.argv", ["octavo", "complete", "-", "--url", server.url])
    with pytest.raises(SystemExit) as exited:
        cli.main()
    assert exited.value.code == 0
    assert server.requests[0]["prompt"] == "Once upon\n"


def test_bytes_that_are_no_text_do_not_end_the_conversation(
    server: FakeOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    piped = io.TextIOWrapper(io.BytesIO(b"caf\xe9\nagain\n"), encoding="utf-8")
    monkeypatch.setattr("sys.stdin", piped)
    assert chat.main(settings=ChatSettings(url=server.url)) == 0
    assert [body["messages"][-1]["content"] for body in server.requests] == ["caf\ufffd", "again"]


def test_a_prompt_that_is_no_text_is_one_line(
    server: FakeOpenAI, capsys: pytest.CaptureFixture[str]
) -> None:
    assert complete.main("caf\udce9", settings=GenerationSettings(url=server.url)) == 1
    assert capsys.readouterr().err == "octavo: what is to be sent is no text in UTF-8; check it.\n"


def test_an_answer_that_breaks_off_is_told(
    server: FakeOpenAI, capsys: pytest.CaptureFixture[str]
) -> None:
    server.breaks_off = True
    assert complete.main("x", settings=GenerationSettings(url=server.url)) == 1
    shown = capsys.readouterr()
    assert shown.out == "Paris\n" and "broke off" in shown.err and shown.err.count("\n") == 1


def test_no_server_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    # Port 1 needs privileges to listen on, and nobody has taken it for decades.
    assert complete.main("x", settings=GenerationSettings(url="http://127.0.0.1:1")) == 1
    shown = capsys.readouterr().err
    assert "no server answers at http://127.0.0.1:1" in shown and shown.count("\n") == 1


def test_ctrl_c_ends_the_answer_and_what_came_of_it_is_kept() -> None:
    def chunks() -> Iterator[Chunk]:
        yield Chunk("Par", None, None, None)
        raise KeyboardInterrupt

    stream = io.StringIO()
    assert print_answer(chunks(), stream) == "Par"
    assert stream.getvalue() == "Par\n"


@pytest.mark.parametrize("url", ["localhost:8000", "http://", "http://[::1", "ftp://host"])
def test_an_address_that_is_none_is_told(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert complete.main("x", settings=GenerationSettings(url=url)) == 1
    assert capsys.readouterr().err == (
        f"octavo: --url {url} is no address; give one such as http://127.0.0.1:8000.\n"
    )


def test_an_answer_that_was_ended_at_once_leaves_no_trace(
    server: FakeOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.words = ()
    type_lines(monkeypatch, "one", "two")
    assert chat.main(settings=ChatSettings(url=server.url)) == 0
    assert [len(body["messages"]) for body in server.requests] == [1, 1]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_control_characters_do_not_reach_a_terminal(
    server: FakeOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.words = ("a\x1b[2J", "\tb\n", "\x9bc")
    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    assert complete.main("x", settings=GenerationSettings(url=server.url)) == 0
    assert terminal.getvalue() == "a[2J\tb\nc\n"
