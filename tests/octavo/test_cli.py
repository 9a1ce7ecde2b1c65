"""octavo.cli: help, mistakes, and where a flag's value comes from."""

import importlib
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import get_type_hints

import pytest

from octavo import cli

SERVICES = ("gateway", "router", "scheduler", "worker")
SCHEDULER = ["scheduler", "--listen", "unix:/no", "--worker-endpoint", "ipc:///no"]
SCHEDULER += ["--served-model-name", "m"]
WORKER = ["worker", "--mock", "--scheduler-endpoint", "ipc:///no"]


def run_cli(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run `octavo ARGUMENTS` in this process; return its exit status."""
    monkeypatch.setattr(sys, "argv", ["octavo", *arguments])
    with pytest.raises(SystemExit) as exited:
        cli.main()
    return int(exited.value.code or 0)


def dry_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *flags: str
) -> dict[str, list[str]]:
    """Return process → its arguments as `octavo serve demo --dry-run FLAGS` prints them."""
    assert run_cli(monkeypatch, "serve", "demo", "--dry-run", *flags) == 0
    commands = {}
    for line in capsys.readouterr().out.splitlines():
        arguments = shlex.split(line)
        start = arguments.index("octavo.cli") + 1
        commands[arguments[start]] = arguments[start + 1 :]
    return commands


def value_of(arguments: list[str], flag: str) -> str:
    return arguments[arguments.index(flag) + 1]


@pytest.mark.parametrize("arguments", [["--help"], ["serve", "--help"], ["--version"]])
def test_help_needs_neither_torch_nor_grpc(arguments: list[str]) -> None:
    code = f"""
import sys
from octavo import cli
sys.argv = {["octavo", *arguments]}
try:
    cli.main()
finally:
    print(sorted({{"torch", "grpc", "tokenizers", "numpy"}} & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
    assert done.stderr == ""


def test_version_is_the_package_version(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli(monkeypatch, "--version") == 0
    assert capsys.readouterr().out.strip() == importlib.import_module("octavo").__version__


@pytest.mark.parametrize("service", SERVICES)
def test_each_process_explains_its_flags(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], service: str
) -> None:
    assert run_cli(monkeypatch, service, "--help") == 0
    shown = capsys.readouterr().out
    settings = get_type_hints(importlib.import_module(f"octavo.{service}.server").main)["settings"]
    hidden = {"ready_fd", "step_loop_core", "failpoints", "mock"}
    for name in set(settings.__dataclass_fields__) - hidden:
        assert "--" + name.replace("_", "-") in shown
    assert "--ready-fd" not in shown
    assert "default: ()" not in shown and "default: None" not in shown


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["serv", "demo"], 'Unknown command "serv". Did you mean "serve"?'),
        (["serve", "demo", "--max-num-seq", "4"], "--max-num-seq. Did you mean --max-num-seqs?"),
        (["serve", "demo", "--port", "many"], "--port"),
        (["serve", "demo", "--port", "70000"], "--port"),
        (["serve", "demo", "--dtype", "float8"], '"float8" for --dtype. Choose from: "auto"'),
        (["serve", "demo", "--log-level", "loud"], "--log-level"),
        (["serve", "demo", "--drain-timeout-s", "nan"], "--drain-timeout-s"),
        (["gateway", "--drain-timeout-s", "inf"], '"inf" for --drain-timeout-s'),
        (["gateway", "--port", "65536"], "--port. Must be <= 65535."),
        (["router", "--scheduler", "unix:/no", "--grpc-port", "-1"], "--grpc-port. Must be >= 0."),
        ([*SCHEDULER, "--max-num-seqs", "0"], "--max-num-seqs. Must be >= 1."),
        ([*SCHEDULER, "--drain-timeout-s", "-1"], "--drain-timeout-s. Must be >= 0."),
        ([*WORKER, "--max-num-batched-tokens", str(2**31)], "--max-num-batched-tokens. Must be <="),
        ([*WORKER, "--rank", "-1"], "--rank. Must be >= 0."),
        ([*WORKER, "--mock-end-rate", "1.1"], "--mock-end-rate. Must be <= 1."),
        (["serve"], "--model requires an argument"),
        (["serve", "demo", "--config", "/no/such.yaml"], "cannot read /no/such.yaml"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    complaint: str,
) -> None:
    assert run_cli(monkeypatch, *arguments) == 2
    shown = capsys.readouterr()
    assert complaint in shown.err
    assert shown.err.startswith("octavo: ") and shown.err.count("\n") == 1
    assert shown.out == ""


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"max-num-seq: 3\n", "Did you mean --max-num-seqs?"),
        (b"port: many\n", '"many"'),
        (b"port: [1\n", "is not valid YAML"),
        (b"\xff\xfe\x00", "is not valid YAML"),
        (b"- port\n", "one `flag: value` a line"),
    ],
)
def test_a_mistake_in_the_file_names_the_file(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    content: bytes,
    complaint: str,
) -> None:
    path = tmp_path / "flags.yaml"
    path.write_bytes(content)
    assert run_cli(monkeypatch, "serve", "demo", "--config", str(path)) == 2
    shown = capsys.readouterr().err
    assert complaint in shown and str(path) in shown
    assert shown.count("\n") == 1


def test_the_command_line_goes_before_the_environment_before_the_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "flags.yaml"
    path.write_text(
        "max-num-seqs: 1\nmax-num-batched-tokens: 1\nblock-size: 1\n"
        "served-model-name: [small, tiny]\nenable-prefix-caching: false\n"
    )
    monkeypatch.setenv("OCTAVO_MAX_NUM_SEQS", "2")
    monkeypatch.setenv("OCTAVO_MAX_NUM_BATCHED_TOKENS", "2")
    flags = ("--max-num-seqs", "3", "--config", str(path))
    commands = dry_run(monkeypatch, capsys, *flags)
    assert value_of(commands["worker"], "--max-num-seqs") == "3"
    assert value_of(commands["worker"], "--max-num-batched-tokens") == "2"
    assert value_of(commands["worker"], "--block-size") == "1"
    assert value_of(commands["worker"], "--seed") == "0"
    names = " ".join(commands["scheduler"])
    assert "--served-model-name small --served-model-name tiny" in names
    assert "--no-enable-prefix-caching" in names


def test_the_file_may_come_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "flags.yaml"
    path.write_text("port: 8123\n")
    monkeypatch.setenv("OCTAVO_CONFIG", str(path))
    assert value_of(dry_run(monkeypatch, capsys)["gateway"], "--port") == "8123"


def test_a_command_takes_its_own_flags_out_of_the_file_of_serve(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "flags.yaml"
    path.write_text("port: 8123\nmax_num_seqs: 3\nmax-model-len: 99\n")
    monkeypatch.setattr(sys, "argv", ["octavo"])
    _, bound, _ = cli.build_app().parse_args(["plan", "demo", "--config", str(path)])
    settings = bound.arguments["settings"]
    assert (settings.max_num_seqs, settings.max_model_len) == (3, 99)


def test_a_key_called_like_a_command_is_a_flag_where_there_is_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "flags.yaml"
    path.write_text("router: 127.0.0.1:7\n")
    monkeypatch.setattr(sys, "argv", ["octavo"])
    _, bound, _ = cli.build_app().parse_args(["gateway", "--config", str(path)])
    assert bound.arguments["settings"].router == "127.0.0.1:7"


def test_ctrl_c_ends_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(dataset: str, **lengths: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("octavo.bench_serve.make_workload", interrupt)
    assert run_cli(monkeypatch, "bench", "serve") == 130
    assert capsys.readouterr().err == ""


def test_a_reader_that_leaves_early_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-P", "-m", "octavo.cli", "config", "show"]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


def test_a_model_may_have_several_names_after_one_flag(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = " ".join(dry_run(monkeypatch, capsys, "--served-model-name", "a", "b")["scheduler"])
    assert "--served-model-name a --served-model-name b" in names


@pytest.mark.parametrize(
    ("command", "key"),
    [
        # `octavo serve` would hand it on as no key at all.
        ("serve demo", ""),
        ("serve demo", "two words"),
        ("gateway", ""),
        ("gateway", "schlüssel"),
        ("router --scheduler unix:/none", ""),
        ("chat", "two words"),
    ],
)
def test_a_key_that_no_header_can_carry_is_refused_unseen(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
    key: str,
) -> None:
    assert run_cli(monkeypatch, *command.split(), "--api-key", key) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("octavo: --api-key: ") and shown.count("\n") == 1
    assert not key or key not in shown
