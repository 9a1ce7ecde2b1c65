"""octavo.serve: what stops it before it starts, what it says when it is ready, how it ends."""

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from octavo.serve import main
from octavo.serve_settings import ServeSettings
from tests.end_to_end.cluster import free_port
from tests.octavo.fakes import has_ended


def test_a_port_in_use_is_told_before_anything_starts(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main("/no/such/model", settings=ServeSettings(port=port)) == 1
    shown = capsys.readouterr().err
    assert shown.startswith(f"octavo: port {port} on 127.0.0.1 is in use")
    assert "--port" in shown and shown.count("\n") == 1


def test_two_flags_with_one_port_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    port = free_port()
    assert main("demo", settings=ServeSettings(port=port, grpc_port=port)) == 1
    assert capsys.readouterr().err == (
        f"octavo: --port and --grpc-port are both {port}; choose two ports.\n"
    )


def test_the_ports_for_metrics_are_not_those_of_the_apis(
    capsys: pytest.CaptureFixture[str],
) -> None:
    port = free_port()
    assert main("demo", settings=ServeSettings(port=port, metrics_port=port - 2)) == 1
    assert capsys.readouterr().err == (
        f"octavo: --port and --metrics-port + 2 are both {port}; choose two ports.\n"
    )


def test_a_model_that_does_not_exist_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    settings = ServeSettings(port=free_port(), grpc_port=free_port())
    assert main("/no/such/model.gguf", settings=settings) == 1
    assert capsys.readouterr().err == (
        "octavo: there is no model at /no/such/model.gguf: the directory / has nothing called no.\n"
    )


def test_a_dry_run_starts_nothing_and_looks_at_no_port(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(str(tmp_path), settings=ServeSettings(port=port, dry_run=True)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("octavo.cli ")[1].split()[0] for line in lines] == [
        "gateway",
        "router",
        "scheduler",
        "worker",
    ]
    assert lines[3].startswith("OMP_WAIT_POLICY=PASSIVE ")


@pytest.fixture
def mock_cluster(tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    """`octavo serve` with the mock worker; its sockets are below tmp_path."""
    command = [sys.executable, "-m", "octavo.cli", "serve", "demo", "--mock"]
    command += ["--served-model-name", "it's a mock"]
    command += ["--port", str(free_port()), "--grpc-port", str(free_port())]
    environment = os.environ | {
        "XDG_RUNTIME_DIR": str(tmp_path),
        "PYTHONSAFEPATH": "1",
        # That of the demo model, whose tokenizer the router uses.
        "OCTAVO_MOCK_VOCAB_SIZE": "49152",
    }
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        yield process
        process.kill()


def read_until(process: "subprocess.Popen[str]", start: str) -> list[str]:
    """Return the lines up to the one that begins with `start`."""
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line.rstrip("\n"))
        if line.startswith(start):
            return lines
    raise AssertionError("\n".join(lines))


@pytest.mark.slow
def test_the_line_it_shows_works_and_sigterm_leaves_nothing(
    mock_cluster: "subprocess.Popen[str]", tmp_path: Path
) -> None:
    lines = read_until(mock_cluster, "curl ")
    stages = [match[1] for line in lines if (match := re.search(r"\| \[ ?(\d+)\] ", line))]
    assert stages == [str(number + 1) for number in range(len(stages))]
    assert any(line.startswith("Ready in ") for line in lines)

    _, url, *options = shlex.split(lines[-1])
    question = json.loads(options[options.index("-d") + 1])
    assert question["model"] == "it's a mock"
    answer = httpx.post(url, json=question | {"max_tokens": 4})
    assert answer.status_code == 200, answer.text

    children = [child.pid for child in psutil.Process(mock_cluster.pid).children()]
    assert len(children) == 4
    mock_cluster.send_signal(signal.SIGTERM)
    _, rest = mock_cluster.communicate(timeout=60)
    assert mock_cluster.returncode == 0, rest
    assert all(has_ended(pid) for pid in children)
    assert list(tmp_path.iterdir()) == []
