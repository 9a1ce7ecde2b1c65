"""octavo.cluster: what `octavo serve` passes on is what the processes take."""

import dataclasses
import importlib
import os
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from octavo.cli import build_app
from octavo.cluster import FLAGS, FLAGS_OF_ALL, Cluster
from octavo.serve_settings import ServeSettings

# What serve needs for itself, and does not pass on.
_OWN = {
    "offline",
    "revision",
    "served_model_name",
    "dry_run",
    "config",
    "ready_fd",
    "step_loop_core",
}


def cluster(**flags: Any) -> Cluster:
    return Cluster(ServeSettings(**flags), Path("/models/x.gguf"), ("demo",), Path("/run/octavo"))


def settings_of(process: str, made: Cluster) -> Any:
    """Return the settings that the process would read from its command."""
    (command,) = [command for command in made.commands() if command.name == process]
    arguments = command.arguments[command.arguments.index("octavo.cli") + 1 :]
    _, bound, _ = build_app().parse_args(list(arguments))
    return bound.arguments["settings"]


def test_every_flag_of_serve_reaches_a_process() -> None:
    passed_on = {name for names in FLAGS.values() for name in names} | set(FLAGS_OF_ALL)
    assert {field.name for field in dataclasses.fields(ServeSettings)} == passed_on | _OWN | {
        "api_key",
        "metrics_port",
    }


@pytest.mark.parametrize("process", FLAGS)
def test_a_process_reads_what_serve_wrote(process: str) -> None:
    given = {
        "host": "127.0.0.2",
        "port": 1,
        "grpc_port": 2,
        "vllm_metric_names": True,
        "chat_template": Path("/t.jinja"),
        "generation_config": "octavo",
        "max_model_len": 4,
        "max_num_seqs": 5,
        "max_num_batched_tokens": 6,
        "scheduling_policy": "priority",
        "enable_prefix_caching": False,
        "async_scheduling": False,
        "max_num_queued_requests": 7,
        "step_timeout_s": 7.5,
        "drain_timeout_s": 8.5,
        "device": "cpu",
        "dtype": "float32",
        "quantization": "int8",
        "load_format": "dummy",
        "block_size": 9,
        "kv_cache_dtype": "fp8",
        "kv_cache_memory_bytes": 10,
        "gpu_memory_utilization": 0.5,
        "num_gpu_blocks_override": 11,
        "enforce_eager": True,
        "cpu_threads": 12,
        "seed": 13,
        "mock": True,
        "log_level": "debug",
        "log_format": "json",
        "failpoints": ("a=exit", "b=delay:1"),
    }
    read = settings_of(process, cluster(**given))
    for name in (*FLAGS[process], *FLAGS_OF_ALL):
        assert getattr(read, name) == given[name], name


@pytest.mark.parametrize("process", FLAGS)
def test_serve_has_the_defaults_of_the_process(process: str) -> None:
    serve = {field.name: field.default for field in dataclasses.fields(ServeSettings)}
    service = importlib.import_module(f"octavo.{process}.server")
    for field in dataclasses.fields(get_type_hints(service.main)["settings"]):
        if field.name in FLAGS[process]:
            assert serve[field.name] == field.default, field.name


def test_the_processes_find_one_another() -> None:
    made = cluster(grpc_port=77)
    gateway, router, scheduler, worker = (settings_of(process, made) for process in FLAGS)
    assert gateway.router == "127.0.0.1:77"
    assert scheduler.listen == "unix:/run/octavo/scheduler.sock"
    assert router.scheduler == (scheduler.listen,)
    assert worker.scheduler_endpoint == scheduler.worker_endpoint
    assert scheduler.served_model_name == ("demo",)
    assert worker.model == "/models/x.gguf"


@pytest.mark.parametrize(
    ("device", "cores", "cpu_threads", "expected"),
    [
        ("cpu", {2, 5}, None, 2),
        ("cpu", {2, 5}, 2, 2),
        ("cpu", {2, 5}, 1, None),
        ("cpu", {5}, None, None),
        ("cuda", {2, 5}, None, None),
    ],
)
def test_all_processes_know_which_core_is_the_step_loop_s(
    device: str,
    cores: set[int],
    cpu_threads: int | None,
    expected: int | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: cores)
    made = cluster(device=device, cpu_threads=cpu_threads)
    assert {settings_of(process, made).step_loop_core for process in FLAGS} == {expected}


@pytest.mark.parametrize(("first", "expected"), [(0, (0, 0, 0)), (9101, (9101, 9102, 9103))])
def test_each_process_has_a_port_for_its_metrics(first: int, expected: tuple[int, ...]) -> None:
    made = cluster(metrics_port=first)
    ports = [settings_of(name, made).metrics_port for name in ("scheduler", "router", "worker")]
    assert tuple(ports) == expected


@pytest.mark.parametrize(
    ("host", "found_at"),
    [("0.0.0.0", "127.0.0.1:8000"), ("::", "[::1]:8000"), ("10.1.2.3", "10.1.2.3:8000")],
)
def test_a_server_on_every_address_is_called_on_the_loopback(host: str, found_at: str) -> None:
    assert cluster(host=host).rest_address == found_at


def test_a_flag_in_our_environment_does_not_reach_a_process_that_serve_did_not_give_it_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OCTAVO_PORT", "9000")
    monkeypatch.setenv("OCTAVO_MOCK_STEP_S", "0.5")
    for command in cluster().commands():
        assert "OCTAVO_PORT" not in command.environment
        assert command.environment["OCTAVO_MOCK_STEP_S"] == "0.5"
        assert command.environment["PATH"] == os.environ["PATH"]
        spins = command.environment.get("OMP_WAIT_POLICY") != "PASSIVE"
        assert spins == (command.name != "worker")


@pytest.mark.parametrize(
    ("process", "expected"),
    [("gateway", "one two"), ("router", "one two"), ("scheduler", None), ("worker", None)],
)
def test_keys_reach_those_that_check_them_and_stand_in_no_command(
    process: str, expected: str | None
) -> None:
    made = cluster(api_key=("one", "two"))
    (command,) = [command for command in made.commands() if command.name == process]
    assert command.environment.get("OCTAVO_API_KEY") == expected
    assert not {"one", "two"} & set(command.arguments)
    assert not any("one two" in line for line in made.command_lines())
