"""`buf curl` knows nothing of Octavo but what the server's reflection tells it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.cluster import Cluster

pytestmark = pytest.mark.slow

BUF = Path(sys.executable).with_name("buf")


def buf_curl(cluster: Cluster, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run it outside the repository, so that it finds no proto files but the server's."""
    command = [str(BUF), "curl", "--protocol", "grpc", "--http2-prior-knowledge"]
    return subprocess.run(
        [*command, "--reflect-protocol", "grpc-v1alpha", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        cwd="/",
    )


def call(cluster: Cluster, method: str, message: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the messages that the method answers with."""
    url = f"http://{cluster.grpc_address}/octavo.v1.{method}"
    ended = buf_curl(cluster, "--emit-defaults", "--data", json.dumps(message), url)
    assert ended.returncode == 0, ended.stderr
    decoder, text, messages = json.JSONDecoder(), ended.stdout.strip(), []
    while text:
        found, end = decoder.raw_decode(text)
        messages.append(found)
        text = text[end:].lstrip()
    return messages


def test_the_methods_are_listed(cluster: Cluster) -> None:
    listed = buf_curl(cluster, "--list-methods", f"http://{cluster.grpc_address}")
    assert listed.returncode == 0, listed.stderr
    methods = listed.stdout.split()
    for method in ("Inference/Chat", "Inference/Generate", "Models/ListModels"):
        assert f"octavo.v1.{method}" in methods
    assert "grpc.health.v1.Health/Check" in methods


def test_a_chat_streams_its_events(cluster: Cluster) -> None:
    message = {
        "options": {
            "model": cluster.model,
            "sampling": {"temperature": 0},
            "stop": {"maxTokens": 32},
        },
        "messages": [{"role": "user", "content": "What is the capital of France?"}],
    }
    events = call(cluster, "Inference/Chat", message)
    assert "started" in events[0] and "usage" in events[-1]
    text = "".join(event["delta"]["text"] for event in events if "delta" in event)
    assert "Paris" in text


def test_an_unknown_model_is_not_found(cluster: Cluster) -> None:
    url = f"http://{cluster.grpc_address}/octavo.v1.Models/GetModel"
    ended = buf_curl(cluster, "--data", '{"model": "gpt-9"}', url)
    assert ended.returncode != 0
    error = json.loads(ended.stderr)
    assert error["code"] == "not_found"
    assert "gpt-9" in error["message"]
