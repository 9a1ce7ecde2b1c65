"""The process that renders chat templates, so that one that loops or grows ends itself only.

Run as `python -m octavo.router.template_helper`; imports nothing of ours. Frames on standard input
and output are a length (4 bytes, little-endian) and that much JSON. The first frame in holds the
template, each one after it a conversation; each is answered by one frame, {"text"} or {"error"}.
minijinja's fuel bounds loops, but not memory: forty string doublings abort the process.
"""

import json
import resource
import struct
import sys
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, BinaryIO

import minijinja

MAX_MEMORY_BYTES = 512 * 1024 * 1024
MAX_CPU_S = 2
_FUEL = 1_000_000

LENGTH = struct.Struct("<I")


class _Refused(Exception):
    """What `raise_exception` in a template raises."""


def main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    setup = _read(requests)
    if setup is None:
        return
    try:
        render = _compile(setup["template"], setup["variables"])
        _write(answers, {})
    except minijinja.TemplateError as error:
        _write(answers, {"error": f"{error.detail} (line {error.line})"})
        return
    while (request := _read(requests)) is not None:
        _allow_cpu_time()
        _write(answers, _answer(render, request))


def _compile(template: str, variables: Mapping[str, str]) -> Callable[[Mapping[str, Any]], str]:
    """Return what renders a conversation as `transformers` does: same options, same functions."""
    environment = minijinja.Environment(
        trim_blocks=True, lstrip_blocks=True, fuel=_FUEL, pycompat=True
    )
    environment.add_template("chat", template)
    environment.add_filter("tojson", _to_json)
    environment.add_global("raise_exception", _raise_exception)
    environment.add_global("strftime_now", lambda format: datetime.now().strftime(format))

    def render(conversation: Mapping[str, Any]) -> str:
        text = environment.render_template(
            "chat",
            messages=conversation["messages"],
            tools=conversation["tools"],
            documents=None,
            add_generation_prompt=conversation["add_generation_prompt"],
            **variables,
        )
        most = conversation["max_characters"]
        if len(text) > most:
            raise _Refused(
                f"the prompt would have {len(text)} characters; at most {most} are taken"
            )
        return text

    return render


def _answer(
    render: Callable[[Mapping[str, Any]], str], conversation: Mapping[str, Any]
) -> dict[str, str]:
    try:
        return {"text": render(conversation)}
    except _Refused as refusal:
        return {"error": f"the chat template refuses these messages: {refusal}"}
    except minijinja.TemplateError as error:
        if error.kind == "OutOfFuel":
            return {"error": "the chat template takes too many steps for these messages"}
        cause = error.detail or error.kind
        return {"error": f"the chat template fails in line {error.line}: {cause}"}


def _to_json(value: Any, **options: Any) -> str:
    """`tojson` without the escapes for HTML that template engines add."""
    return json.dumps(value, **{"ensure_ascii": False} | options)


def _raise_exception(message: str) -> None:
    raise _Refused(message)


def _allow_cpu_time() -> None:
    """Let this request use `MAX_CPU_S` more; the process dies if it wants more."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    used_s = int(usage.ru_utime + usage.ru_stime)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (used_s + 1 + MAX_CPU_S, hard))


def _read(stream: BinaryIO) -> Any:
    header = stream.read(LENGTH.size)
    if len(header) < LENGTH.size:
        return None
    return json.loads(stream.read(LENGTH.unpack(header)[0]))


def _write(stream: BinaryIO, message: Mapping[str, str]) -> None:
    payload = json.dumps(message).encode()
    stream.write(LENGTH.pack(len(payload)) + payload)
    stream.flush()


if __name__ == "__main__":
    main()
