"""Bad input gets a sentence that says what is wrong, and disturbs no request that is running."""

import json
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import torch
import zmq
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from tests.end_to_end.cluster import Cluster, free_port

pytestmark = pytest.mark.slow

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
HELLO = [{"role": "user", "content": "Hello"}]
TOOL_ANSWER = {"role": "tool", "content": "7"}


@pytest.fixture
def undisturbed(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[None]:
    """A stream that runs while the test does, and has to end whole.

    Its parameter is how many tokens it has; without one, enough to outlast a request's refusal.
    """
    num_tokens = getattr(request, "param", 50)
    body = {"model": "demo", "prompt": "Count: one two", "temperature": 0, "max_tokens": num_tokens}
    streamed: list[str] = []
    started = threading.Event()

    def read() -> None:
        with httpx.stream(
            "POST",
            cluster.base_url + COMPLETIONS,
            json=body | {"stream": True, "ignore_eos": True},
            timeout=120,
        ) as response:
            for line in response.iter_lines():
                if line:
                    streamed.append(line)
                    started.set()

    reader = threading.Thread(target=read)
    reader.start()
    assert started.wait(30)
    yield
    reader.join(120)
    assert streamed[-1] == "data: [DONE]"
    choices = [json.loads(line.removeprefix("data: "))["choices"] for line in streamed[:-1]]
    assert choices[-1][0]["finish_reason"] == "length"


@pytest.mark.parametrize(
    ("path", "body", "status", "param", "words"),
    [
        (CHAT, {"model": "gpt-9", "messages": HELLO}, 404, "model", ["gpt-9", "demo"]),
        (CHAT, {"model": "demo", "messages": []}, 400, "messages", ["messages"]),
        (CHAT, {"messages": HELLO, "temperature": 3}, 400, "temperature", ["3", "0", "2"]),
        (CHAT, {"messages": HELLO, "max_tokens": 0}, 400, "max_tokens", [">= 1"]),
        (CHAT, {"messages": HELLO, "temperature": "hot"}, 400, "temperature", ["str"]),
        (CHAT, {"messages": [TOOL_ANSWER]}, 400, "messages[0].role", ["tool", "not offered"]),
        (COMPLETIONS, {"prompt": [5] * 9000}, 400, "prompt", ["9000", "8192"]),
        (COMPLETIONS, {"prompt": [49152]}, 400, "prompt", ["49152"]),
    ],
)
def test_a_wrong_field_is_named(
    undisturbed: None,
    cluster: Cluster,
    path: str,
    body: dict[str, Any],
    status: int,
    param: str,
    words: list[str],
) -> None:
    response = httpx.post(cluster.base_url + path, json={"model": "demo"} | body)
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (status, param), error
    assert all(word in error["message"] for word in words), error["message"]


@pytest.mark.parametrize(
    ("content", "status", "words"),
    [
        (b'{"model": "demo", "messages": [', 400, "JSON"),
        (b'{"model": "demo", "messages": [{"role": "user", "content": "\xff"}]}', 400, "UTF-8"),
        (b'{"model": "demo", "prompt": "' + b"a" * 20_000_000 + b'"}', 413, "4194304"),
    ],
    ids=["cut JSON", "bad UTF-8", "20 MB"],
)
def test_a_body_that_cannot_be_read_is_refused(
    undisturbed: None, cluster: Cluster, content: bytes, status: int, words: str
) -> None:
    response = httpx.post(cluster.base_url + CHAT, content=content)
    assert response.status_code == status
    assert words in response.json()["error"]["message"]


def unix_sockets(cluster: Cluster) -> list[str]:
    """Return the paths of the sockets that the cluster's processes listen on."""
    paths = {
        str(connection.laddr)
        for child in cluster.children()
        for connection in child.net_connections("unix")
        if str(connection.laddr).startswith("/")
    }
    assert paths
    return sorted(paths)


@pytest.mark.parametrize("undisturbed", [150], indirect=True)
def test_garbage_on_the_internal_sockets_is_dropped(undisturbed: None, cluster: Cluster) -> None:
    garbage = [b"", b"\x00", b"garbage", bytes(range(256)) * 16, b"\x0a\xff\xff\xff\xff\x0f"]
    context = zmq.Context()
    for path in unix_sockets(cluster):
        dealer = context.socket(zmq.DEALER)
        dealer.connect(f"ipc://{path}")
        for frame in garbage:
            dealer.send(frame)
            dealer.send_multipart([frame, frame])
        dealer.close(linger=1000)
        with socket.socket(socket.AF_UNIX) as stream:
            stream.connect(path)
            stream.sendall(b"".join(garbage))
    context.term()


def failed_start(model: str, port: int | None = None) -> str:
    """Run `octavo serve`, which has to fail, and return what it said."""
    command = [sys.executable, "-m", "octavo.cli", "serve", model]
    command += ["--port", str(port or free_port()), "--grpc-port", str(free_port())]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    output = ended.stdout + ended.stderr
    assert ended.returncode == 1, output
    assert "Traceback" not in output
    assert not [child for child in psutil.Process().children() if child.name().startswith("octavo")]
    return output


def test_a_gguf_file_cut_in_half(demo_model: Path, tmp_path: Path) -> None:
    whole = demo_model.read_bytes()
    (tmp_path / "half.gguf").write_bytes(whole[: len(whole) // 2])
    output = failed_start(str(tmp_path / "half.gguf"))
    assert "half.gguf" in output and f"the file has {len(whole) // 2} bytes" in output


def test_a_safetensors_file_with_a_missing_tensor(tmp_path: Path, demo_model: Path) -> None:
    config = LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1,
    )  # fmt: skip
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["model.layers.1.mlp.down_proj.weight"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    output = failed_start(str(tmp_path))
    assert f"{tmp_path}: tensor model.layers.1.mlp.down_proj.weight is missing" in output


def test_a_port_in_use_is_named_with_its_flag() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        output = failed_start("demo", port)
    assert str(port) in output and "--port" in output


def test_a_model_path_that_does_not_exist(tmp_path: Path) -> None:
    output = failed_start(str(tmp_path / "no-such-model"))
    assert "no-such-model" in output


def test_an_unknown_flag_names_the_nearest_one() -> None:
    command = [sys.executable, "-m", "octavo.cli", "serve", "demo", "--max-num-seq", "4"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ended.returncode != 0
    assert "--max-num-seqs" in ended.stdout + ended.stderr


def test_octavo_is_on_the_path() -> None:
    assert shutil.which("octavo", path=str(Path(sys.executable).parent))
