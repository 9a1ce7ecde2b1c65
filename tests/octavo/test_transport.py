"""octavo.transport: which addresses are taken, and with which keys."""

from pathlib import Path
from typing import Any

import pytest
import zmq

from octavo import keys
from octavo.startup import StartupError
from octavo.transport import TransportSettings, curve_keys

TCP = "tcp://127.0.0.1:5555"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """What `octavo keys` makes."""
    assert keys.main(tmp_path / "keys") == 0
    return tmp_path / "keys"


def of_scheduler(directory: Path, **flags: Any) -> TransportSettings:
    flags = {
        "curve_secret_key_file": directory / "scheduler.key",
        "curve_peer_keys_file": directory / "worker.pub",
    } | flags
    return TransportSettings(**flags)


def test_the_keys_that_were_made_belong_together(directory: Path) -> None:
    read = curve_keys("--worker-endpoint", TCP, of_scheduler(directory))
    assert read is not None
    worker_secret = (directory / "worker.key").read_bytes().strip()
    assert read.peers == {zmq.curve_public(worker_secret)}
    public = (directory / "scheduler.pub").read_bytes().strip()
    assert zmq.curve_public(read.secret) == public


def test_ipc_needs_no_keys() -> None:
    assert curve_keys("--worker-endpoint", "ipc:///run/w.sock", TransportSettings()) is None


def test_tcp_without_keys_is_for_those_who_say_so() -> None:
    assert curve_keys("--worker-endpoint", TCP, TransportSettings(insecure_transport=True)) is None


@pytest.mark.parametrize(
    ("endpoint", "flags", "message"),
    [
        (TCP, {"curve_secret_key_file": None, "curve_peer_keys_file": None}, "Give --curve-secret"),
        (TCP, {"curve_peer_keys_file": None}, "Give --curve-peer-keys-file, which"),
        (TCP, {"insecure_transport": True}, "--insecure-transport and keys exclude one another"),
        ("ipc:///run/w.sock", {}, "--curve-secret-key-file is for tcp:// addresses"),
        ("ipc://w.sock", {}, "give ipc:///path or tcp://address:port"),
        ("inproc://w", {}, "give ipc:///path or tcp://address:port"),
        (TCP, {"curve_secret_key_file": Path("/nowhere")}, "--curve-secret-key-file /nowhere: No"),
    ],
)
def test_address_and_keys_must_go_together(
    directory: Path, endpoint: str, flags: dict[str, Any], message: str
) -> None:
    with pytest.raises(StartupError, match=message):
        curve_keys("--worker-endpoint", endpoint, of_scheduler(directory, **flags))


def test_insecure_transport_does_nothing_for_ipc() -> None:
    settings = TransportSettings(insecure_transport=True)
    with pytest.raises(StartupError, match="--insecure-transport is for tcp:// addresses"):
        curve_keys("--worker-endpoint", "ipc:///run/w.sock", settings)


@pytest.mark.parametrize("content", ["", "\n", "x" * 39, "x" * 41, "ä" * 20, f"{'x' * 39}~"])
def test_a_file_without_a_key_is_told_and_not_shown(directory: Path, content: str) -> None:
    path = directory / "scheduler.key"
    path.write_text(content)
    with pytest.raises(StartupError, match="--curve-secret-key-file .*scheduler.key: ") as caught:
        curve_keys("--worker-endpoint", TCP, of_scheduler(directory))
    assert not content.strip() or content not in str(caught.value)


def test_one_process_has_one_secret(directory: Path) -> None:
    path = directory / "scheduler.key"
    path.write_bytes(path.read_bytes() * 2)
    with pytest.raises(StartupError, match="holds 2 keys, not one"):
        curve_keys("--worker-endpoint", TCP, of_scheduler(directory))


def test_a_worker_has_one_scheduler(directory: Path) -> None:
    peers = (directory / "scheduler.pub").read_text() + (directory / "worker.pub").read_text()
    (directory / "two.pub").write_text(peers)
    settings = of_scheduler(directory, curve_peer_keys_file=directory / "two.pub")
    with pytest.raises(StartupError, match="holds 2 keys; 1 is what this process can have"):
        curve_keys("--scheduler-endpoint", TCP, settings, max_peers=1)
