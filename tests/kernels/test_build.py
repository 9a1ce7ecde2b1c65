"""The build of the C++ kernels: once, cached by all that matters, and never fatal."""

import ctypes
import fcntl
import functools
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from octavo.kernels.cpu import build, library
from octavo.kernels.linear import linear, pack_weight

SOURCE = 'extern "C" int answer() { return 42; }\n'


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache; this is where the libraries will lie."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "octavo" / "kernels"


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small source to build instead of the kernels. Skips where there is no compiler."""
    try:
        build.find_compiler()
    except build.BuildError as error:
        pytest.skip(str(error))
    folder = tmp_path / "sources"
    folder.mkdir()
    (folder / "answer.cpp").write_text(SOURCE)
    monkeypatch.setattr(build, "SOURCE_FOLDER", folder)
    return folder


@pytest.fixture
def fresh_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """`library.load` has loaded nothing yet; after the test it has what it had before.

    To forget that as well would have somebody build all kernels again, in a test's own cache.
    """
    monkeypatch.setattr(library, "load", functools.cache(library.load.__wrapped__))


def compiler_script(folder: Path, body: str) -> Path:
    """A compiler of our own; `body` sees the arguments in $@ and the real one in $real."""
    real = build.find_compiler()
    script = folder / "compiler"
    script.write_text(f'#!/bin/sh\nreal="{" ".join(real)}"\n{body}\n')
    script.chmod(0o755)
    return script


def answer(path: Path) -> int:
    value = ctypes.CDLL(str(path)).answer()
    assert isinstance(value, int)
    return value


def test_builds_into_the_cache_and_finds_it_there_again(cache: Path, sources: Path) -> None:
    path = build.library_path()
    built_at = path.stat().st_mtime_ns
    assert path.parent == cache
    assert answer(path) == 42
    assert build.library_path() == path
    assert path.stat().st_mtime_ns == built_at
    assert sorted(p.suffix for p in cache.iterdir()) == [".lock", ".so"]


def test_a_changed_source_is_built_anew(cache: Path, sources: Path) -> None:
    first = build.library_path()
    (sources / "answer.cpp").write_text(SOURCE.replace("42", "43"))
    second = build.library_path()
    assert (answer(first), answer(second)) == (42, 43)


def test_the_key_knows_sources_headers_compiler_flags_and_processor(
    cache: Path, sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler = build.find_compiler()
    keys = [build.cache_key(compiler)]
    (sources / "answer.h").write_text("")
    keys.append(build.cache_key(compiler))
    (sources / "answer.h").rename(sources / "question.h")
    keys.append(build.cache_key(compiler))
    keys.append(build.cache_key([str(compiler_script(tmp_path, "echo 1"))]))
    keys.append(build.cache_key([str(compiler_script(tmp_path, "echo 2"))]))
    monkeypatch.setattr(build, "FLAGS", (*build.FLAGS, "-g"))
    keys.append(build.cache_key(compiler))
    monkeypatch.setattr(build, "_cpu_features", lambda: b"another")
    keys.append(build.cache_key(compiler))
    assert len(set(keys)) == len(keys)
    assert build.cache_key(compiler) == keys[-1]


def test_a_compiler_that_does_not_know_the_machine_builds_for_any(
    cache: Path, sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = 'case "$*" in *-march=native*) echo no >&2; exit 1;; esac; exec $real "$@"'
    monkeypatch.setenv("CXX", str(compiler_script(tmp_path, body)))
    assert answer(build.library_path()) == 42


@pytest.mark.slow
@pytest.mark.parametrize("variant", build.VARIANTS, ids=" ".join)
def test_the_kernels_compile_without_a_warning(variant: tuple[str, ...], cpu: ctypes.CDLL) -> None:
    strict = ("-Wall", "-Wextra", "-Werror", "-fsyntax-only")
    for source in build.SOURCE_FOLDER.glob("*.cpp"):
        command = [*build.find_compiler(), *build.FLAGS, *variant, *strict, str(source)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr


def test_two_processes_build_once(
    cache: Path, sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = f'echo "$@" >> {tmp_path}/calls; exec $real "$@"'
    monkeypatch.setenv("CXX", str(compiler_script(tmp_path, body)))
    code = (
        "import pathlib\n"
        "from octavo.kernels.cpu import build\n"
        f"build.SOURCE_FOLDER = pathlib.Path({str(sources)!r})\n"
        "print('ready', flush=True)\n"
        "print(build.library_path(), flush=True)\n"
    )
    cache.mkdir(parents=True)
    lock_path = cache / f"kernels-{build.cache_key(build.find_compiler())}.lock"
    with open(lock_path, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # Until both are under way, neither builds.
        processes = [
            subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
            for _ in range(2)
        ]
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
    paths = {process.communicate(timeout=60)[0].strip() for process in processes}
    assert paths == {str(build.library_path())}
    calls = (tmp_path / "calls").read_text().splitlines()
    assert sum("-shared" in call for call in calls) == 1
    assert answer(Path(paths.pop())) == 42


@pytest.mark.parametrize("damage", ["cut short", "empty", "one bit"])
def test_a_damaged_library_is_built_again(damage: str, cache: Path, sources: Path) -> None:
    path = build.library_path()
    whole = bytearray(path.read_bytes())
    if damage == "cut short":
        del whole[1000:]
    elif damage == "empty":
        whole.clear()
    else:
        whole[500] ^= 1
    path.unlink()
    path.write_bytes(whole)
    assert answer(build.library_path()) == 42


@pytest.mark.parametrize("trouble", ["no compiler", "compiler fails", "cache is a file"])
def test_trouble_is_one_warning_and_the_references_run(
    trouble: str,
    cache: Path,
    fresh_library: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    if trouble == "no compiler":
        monkeypatch.setenv("CXX", str(tmp_path / "nothing"))
    elif trouble == "compiler fails":
        script = tmp_path / "compiler"
        script.write_text("#!/bin/sh\necho the disk is on fire >&2\nexit 1\n")
        script.chmod(0o755)
        monkeypatch.setenv("CXX", str(script))
    else:
        cache.parent.parent.write_text("in the way")
    with caplog.at_level(logging.WARNING):
        x, weight = torch.randn(3, 8), torch.randn(5, 8)
        assert torch.allclose(linear(x, pack_weight(weight)), x @ weight.T)
        assert library.load() is None
    (record,) = caplog.records
    hint = {"no compiler": "nothing", "compiler fails": "on fire", "cache is a file": "cache"}
    assert hint[trouble] in record.getMessage()
    assert os.linesep not in record.getMessage()
