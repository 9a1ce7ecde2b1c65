"""octavo.run_directory: private, short enough for a socket, gone afterwards."""

import socket
import stat
from pathlib import Path

import pytest

from octavo.run_directory import run_directory


def test_the_directory_is_private_and_goes_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with run_directory() as directory:
        assert directory.parent == tmp_path
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        (directory / "scheduler.sock").touch()
    assert not directory.exists()


@pytest.mark.parametrize("runtime", ["missing", "x" * 120])
def test_a_socket_fits_whatever_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runtime: str
) -> None:
    unusable = tmp_path / runtime
    if len(runtime) > 100:
        unusable.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(unusable))
    with run_directory() as directory, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(directory / "scheduler.sock"))
