"""A process that is killed is replaced, and requests go on or can be sent again."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.end_to_end.cluster import START_TIMEOUT_S, Cluster, running_cluster

pytestmark = pytest.mark.slow

BODY = {"model": "demo", "prompt": "Once upon a time", "temperature": 0, "ignore_eos": True}


@pytest.fixture(scope="module")
def own_cluster(tmp_path_factory: pytest.TempPathFactory, demo_model: Path) -> Iterator[Cluster]:
    log_path = tmp_path_factory.mktemp("restarts") / "serve.log"
    with running_cluster(log_path, "demo", ["--dtype", "float32"]) as cluster:
        yield cluster


def complete(cluster: Cluster, max_tokens: int) -> str:
    url = cluster.base_url + "/v1/completions"
    answer = httpx.post(url, json=BODY | {"max_tokens": max_tokens}, timeout=120)
    assert answer.status_code == 200, answer.text
    text: str = answer.json()["choices"][0]["text"]
    return text


def test_streams_go_on_when_the_worker_is_killed(own_cluster: Cluster) -> None:
    undisturbed = complete(own_cluster, 100)
    received = []
    with httpx.stream(
        "POST",
        own_cluster.base_url + "/v1/completions",
        json=BODY | {"max_tokens": 100, "stream": True, "return_token_ids": True},
        timeout=120,
    ) as response:
        for line in response.iter_lines():
            if not line:
                continue
            received.append(line)
            if len(received) == 20:
                own_cluster.process_of("worker").kill()
    assert len(received) > 20 and received[-1] == "data: [DONE]"
    assert streamed_text(received) == undisturbed


def streamed_text(lines: list[str]) -> str:
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
    return "".join(chunk["choices"][0]["text"] for chunk in chunks)


@pytest.mark.parametrize("command", ["gateway", "router", "scheduler"])
def test_requests_are_answered_again_after_a_kill(own_cluster: Cluster, command: str) -> None:
    before = complete(own_cluster, 20)
    killed = own_cluster.process_of(command)
    killed.kill()
    psutil.wait_procs([killed])
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        try:
            if httpx.get(own_cluster.base_url + "/ready").status_code == 200:
                break
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    assert complete(own_cluster, 20) == before
