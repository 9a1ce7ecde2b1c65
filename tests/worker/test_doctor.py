"""octavo.worker.doctor: what is wrong is found and has a fix."""

import json
import resource
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from octavo.kernels.cpu import build
from octavo.worker import doctor
from octavo.worker.doctor import DoctorSettings
from tests.end_to_end.cluster import free_port


def examine(capsys: pytest.CaptureFixture[str], **flags: Any) -> tuple[int, dict[str, Any]]:
    """Return the exit status, and check → finding."""
    ports = {"port": free_port(), "grpc_port": free_port()}
    status = doctor.main(settings=DoctorSettings(**(ports | flags), json=True))
    return status, {each["check"]: each for each in json.loads(capsys.readouterr().out)}


def test_a_machine_that_runs_these_tests_can_serve(capsys: pytest.CaptureFixture[str]) -> None:
    status, findings = examine(capsys)
    assert status == 0
    assert findings["cpu"]["status"] == "ok" and findings["sockets"]["status"] == "ok"
    for finding in findings.values():
        assert (finding["fix"] is None) == (finding["status"] == "ok")


def test_a_taken_port_is_an_error_with_a_fix(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        status, findings = examine(capsys, grpc_port=port)
    assert status == 1
    assert findings["grpc-port"]["status"] == "error"
    assert f"port {port} on 127.0.0.1 is in use" in findings["grpc-port"]["text"]
    assert "--grpc-port" in findings["grpc-port"]["fix"]


def test_without_a_compiler_there_is_a_warning(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(build.BuildError):
        build.library_path()
    status, findings = examine(capsys)
    assert status == 0
    assert findings["kernels"]["status"] == "warning"
    assert "no-such-compiler" in findings["kernels"]["text"]


def test_a_cache_that_cannot_be_made_is_an_error(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    status, findings = examine(capsys)
    assert status == 1
    assert "XDG_CACHE_HOME" in findings["cache"]["fix"]


def test_few_open_files_are_a_warning(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda limit: (256, 1024))
    _, findings = examine(capsys)
    assert findings["open files"]["status"] == "warning"
    assert findings["open files"]["fix"] == "ulimit -n 1024"


def test_for_people_there_is_a_line_for_each_check(capsys: pytest.CaptureFixture[str]) -> None:
    doctor.main(settings=DoctorSettings(port=free_port(), grpc_port=free_port()))
    shown = capsys.readouterr().out
    lines = shown.splitlines()
    assert [line.split()[1] for line in lines[:2]] == ["cpu", "memory"]
    assert lines[-1].startswith("0 errors") and "\x1b" not in shown


def test_little_memory_is_a_warning(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "available_bytes", lambda: 1 << 30)
    status, findings = examine(capsys)
    assert status == 0
    assert findings["memory"]["status"] == "warning" and findings["memory"]["fix"]


def test_torch_is_looked_for_and_not_imported() -> None:
    code = "import sys, octavo.worker.doctor as d; d.main(); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
