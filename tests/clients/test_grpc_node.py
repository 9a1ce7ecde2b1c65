"""A Node client made from the proto files alone chats, cancels and runs into a deadline."""

import fcntl
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.cluster import Cluster

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("npm") is None, reason="needs Node.js"),
]

FOLDER = Path(__file__).parent


@pytest.fixture(scope="module")
def node_modules() -> None:
    """What package-lock.json names, installed once."""
    with (FOLDER / "package.json").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if not (FOLDER / "node_modules" / ".package-lock.json").exists():
            subprocess.run(["npm", "ci"], cwd=FOLDER, check=True, timeout=300)


def run_client(address: str, model: str) -> dict[str, Any]:
    command = ["node", str(FOLDER / "grpc_client.js"), address, model]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    seen: dict[str, Any] = json.loads(ended.stdout)
    return seen


def test_it_streams_a_chat_cancels_one_and_sees_a_deadline(
    node_modules: None, cluster: Cluster
) -> None:
    seen = run_client(cluster.grpc_address, cluster.model)

    chat = seen["chat"]
    assert chat["code"] == "OK"
    assert "Paris" in chat["text"]
    assert chat["kinds"][0] == "started"
    assert chat["kinds"][-2:] == ["finished", "usage"]
    assert chat["sequence_numbers"] == list(range(len(chat["kinds"])))
    assert chat["finished"]["reason"] == "FINISH_REASON_STOP"
    assert chat["usage"]["num_output_tokens"] == len(chat["token_ids"])

    assert seen["cancelled"]["code"] == "CANCELLED"
    assert seen["cancelled"]["kinds"][0] == "started"
    assert "finished" not in seen["cancelled"]["kinds"]

    assert seen["late"]["code"] == "DEADLINE_EXCEEDED"
    assert seen["late"]["kinds"][0] == "started"
