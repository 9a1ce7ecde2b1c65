"""The template helper as a process: its limits, without the caller's clock."""

import json
import signal
import subprocess
import sys

from octavo.router.template_helper import LENGTH

USER = {
    "messages": [{"role": "user", "content": "hi"}],
    "tools": None,
    "add_generation_prompt": True,
    "max_characters": 1000,
}


def run(template: str, *requests: object) -> subprocess.CompletedProcess[bytes]:
    setup = {"template": template, "variables": {}}
    frames = b""
    for frame in (setup, *requests):
        payload = json.dumps(frame).encode()
        frames += LENGTH.pack(len(payload)) + payload
    command = (sys.executable, "-m", "octavo.router.template_helper")
    return subprocess.run(command, input=frames, capture_output=True, timeout=60)


def answers(output: bytes) -> list[dict[str, str]]:
    frames = []
    while output:
        (size,) = LENGTH.unpack(output[: LENGTH.size])
        frames.append(json.loads(output[LENGTH.size : LENGTH.size + size]))
        output = output[LENGTH.size + size :]
    return frames


def test_it_answers_each_frame_and_ends_with_its_input() -> None:
    process = run("{{ messages[0].content }}", USER, USER)
    assert process.returncode == 0
    assert answers(process.stdout) == [{}, {"text": "hi"}, {"text": "hi"}]


def test_memory_beyond_the_limit_ends_the_process() -> None:
    process = run("{% set s = 'x' * 10 ** 6 %}{{ s.replace('x', s) }}", USER)
    assert process.returncode == -signal.SIGABRT
    assert answers(process.stdout) == [{}]
