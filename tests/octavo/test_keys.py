"""octavo.keys: what it writes, and what it leaves alone."""

from pathlib import Path

import pytest

from octavo import keys


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """What `octavo keys` makes."""
    assert keys.main(tmp_path / "keys") == 0
    return tmp_path / "keys"


def test_only_their_owner_can_read_keys(directory: Path) -> None:
    modes = {path.name: path.stat().st_mode & 0o777 for path in directory.iterdir()}
    names = ("scheduler.key", "scheduler.pub", "worker.key", "worker.pub")
    assert modes == dict.fromkeys(names, 0o600)
    assert directory.stat().st_mode & 0o777 == 0o700


def test_keys_are_never_replaced(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (directory / "scheduler.key").unlink()
    before = {path: path.read_bytes() for path in directory.iterdir()}
    assert keys.main(directory) == 1
    assert "scheduler.pub is there already" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in directory.iterdir()} == before


def test_a_directory_that_cannot_be_made_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert keys.main(tmp_path / "file" / "keys") == 1
    assert capsys.readouterr().err == f"octavo: {tmp_path / 'file' / 'keys'}: Not a directory\n"
