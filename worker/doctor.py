"""`octavo doctor`: can this machine serve, and what to do where it cannot.

Nothing here imports torch, which alone takes two seconds.
"""

import importlib.metadata
import json
import os
import resource
import shutil
import subprocess
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from rich.console import Console
from rich.text import Text

from octavo.flag_types import Port
from octavo.kernels.cpu import build
from octavo.ports import check_port_is_free
from octavo.run_directory import run_directory
from octavo.startup import StartupError

from .cpu_features import bfloat16_feature
from .memory import available_bytes, machine_bytes

_LEAST_OPEN_FILES = 4096
_LEAST_DISK_BYTES = 2 << 30
_LEAST_MEMORY_BYTES = 2 << 30
_LEAST_SHM_BYTES = 64 << 20
_SHM = Path("/dev/shm")
_QUERY_TIMEOUT_S = 10

_COLORS = {"ok": "green", "warning": "yellow", "error": "red"}


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found."""

    check: str
    status: Literal["ok", "warning", "error"]
    """With a warning one can serve, with an error not."""
    text: str
    fix: str | None = None
    """What to do; None where all is well."""


@dataclass(frozen=True, kw_only=True)
class DoctorSettings:
    """Flags of `octavo doctor`: those of `octavo serve` that the machine has to agree with."""

    host: str = "127.0.0.1"
    """Address that `octavo serve` is to listen on."""
    port: Port = 8000
    """Port of the REST API."""
    grpc_port: Port = 50051
    """Port of the gRPC API."""
    json: Annotated[bool, Parameter(negative=())] = False
    """Print a list of objects with check, status, text and fix."""
    config: Path | None = None
    """YAML file that gives flags; the command line and the environment go before it."""


def main(*, settings: Annotated[DoctorSettings, Parameter(name="*")] = DoctorSettings()) -> int:
    """Check this machine: devices, compiler, kernels, ports, directories, limits."""
    findings = [
        _check_cpu(),
        _check_memory(),
        _check_gpus(),
        _check_torch(),
        _check_kernels(),
        _check_port(settings.host, settings.port, "--port"),
        _check_port(settings.host, settings.grpc_port, "--grpc-port"),
        _check_cache(),
        _check_sockets(),
        _check_shared_memory(),
        _check_open_files(),
    ]
    if settings.json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        # Long lines are the terminal's to wrap: paths in them are there to be copied.
        Console(highlight=False, soft_wrap=True).print(_report(findings))
    return int(any(finding.status == "error" for finding in findings))


def _report(findings: list[Finding]) -> Text:
    width = max(len(finding.check) for finding in findings)
    report = Text()
    for finding in findings:
        report.append(f"{finding.status:<7}", style=_COLORS[finding.status])
        report.append(f"  {finding.check:<{width}}  {finding.text}\n")
        if finding.fix:
            report.append(f"{'':<7}  {'':<{width}}  fix: {finding.fix}\n", style="bold")
    errors = sum(finding.status == "error" for finding in findings)
    warnings = sum(finding.status == "warning" for finding in findings)
    report.append(f"\n{_counted(errors, 'error')}, {_counted(warnings, 'warning')}. ")
    report.append("Mend the errors first." if errors else "This machine can serve.")
    return report


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _check_cpu() -> Finding:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    feature = bfloat16_feature()
    kind = f"{feature}: bfloat16 is computed fast" if feature else "float32, no bfloat16 of its own"
    return Finding("cpu", "ok", f"{cores} cores, {kind}")


def _check_memory() -> Finding:
    available = available_bytes()
    text = f"{available / 1e9:.1f} of {machine_bytes() / 1e9:.1f} GB available"
    if available < _LEAST_MEMORY_BYTES:
        fix = "end other programs; `octavo plan MODEL` says what a model takes."
        return Finding("memory", "warning", text, fix)
    return Finding("memory", "ok", text)


def _check_gpus() -> Finding:
    """GPUs are named where there are some; this release computes on the CPU."""
    names: list[str] = []
    if program := shutil.which("nvidia-smi"):
        try:
            done = subprocess.run(
                [program, "--query-gpu=name", "--format=csv,noheader"],
                capture_output=True,
                text=True,
                timeout=_QUERY_TIMEOUT_S,
                check=True,
            )
            names = done.stdout.split("\n")[:-1]
        except (OSError, subprocess.SubprocessError) as error:
            fix = "run nvidia-smi by hand; usually the driver must be loaded or installed again."
            return Finding("gpu", "warning", f"nvidia-smi fails: {error}", fix)
    return Finding("gpu", "ok", f"{', '.join(names) or 'none'}; this release computes on the CPU")


def _check_torch() -> Finding:
    try:
        return Finding("torch", "ok", importlib.metadata.version("torch"))
    except importlib.metadata.PackageNotFoundError:
        fix = "install it: pip install torch"
        return Finding("torch", "error", "not installed; the worker computes with it", fix)


def _check_kernels() -> Finding:
    """Build the kernels, or find them built: that is the compiler's test."""
    started_s = time.monotonic()
    try:
        path = build.library_path()
    except (build.BuildError, OSError) as error:
        fix = "install g++ or clang++ (Debian: apt install g++), or name one in CXX."
        return Finding("kernels", "warning", f"{error}; plain PyTorch, far slower, is used", fix)
    return Finding("kernels", "ok", f"{path} ({time.monotonic() - started_s:.1f} s)")


def _check_port(host: str, port: int, flag: str) -> Finding:
    check = flag.removeprefix("--")
    try:
        check_port_is_free(host, port, flag)
    except StartupError as error:
        problem, _, fix = str(error).partition("; ")
        return Finding(check, "error", problem, fix)
    return Finding(check, "ok", f"{port} on {host} is free")


def _check_cache() -> Finding:
    path = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "octavo"
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        fix = "make the directory writable, or name another in XDG_CACHE_HOME."
        return Finding("cache", "error", f"{path} cannot be made: {error.strerror}", fix)
    if not os.access(path, os.W_OK | os.X_OK):
        fix = f"chown or chmod it: chmod u+rwx {path}"
        return Finding("cache", "error", f"{path} cannot be written to", fix)
    free = shutil.disk_usage(path).free
    if free < _LEAST_DISK_BYTES:
        fix = "delete models that are no longer needed, or set XDG_CACHE_HOME to a larger disk."
        return Finding("cache", "warning", f"{path} has {free / 1e9:.1f} GB left for models", fix)
    return Finding("cache", "ok", f"{path}, {free / 1e9:.0f} GB free")


def _check_sockets() -> Finding:
    try:
        with run_directory() as path:
            return Finding("sockets", "ok", f"a private directory in {path.parent}")
    except (StartupError, OSError) as error:
        fix = "set TMPDIR to a directory with a short path that can be written to."
        return Finding("sockets", "error", str(error), fix)


def _check_shared_memory() -> Finding:
    if not _SHM.exists():
        fix = "mount it: mount -t tmpfs tmpfs /dev/shm"
        return Finding("shared memory", "warning", f"there is no {_SHM}", fix)
    free = shutil.disk_usage(_SHM).free
    if free < _LEAST_SHM_BYTES:
        fix = "remount it larger; for a container: docker run --shm-size 1g"
        return Finding("shared memory", "warning", f"{_SHM} has {free >> 20} MiB free", fix)
    return Finding("shared memory", "ok", f"{_SHM} has {free >> 20:,} MiB free")


def _check_open_files() -> Finding:
    """Each stream of a client is a connection, and a connection is an open file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < _LEAST_OPEN_FILES:
        fix = f"ulimit -n {min(65_536, hard) if hard > 0 else 65_536}"
        return Finding("open files", "warning", f"at most {soft}: few clients at once", fix)
    return Finding("open files", "ok", f"at most {soft:,}")
