"""Builds the C++ kernels once for this machine and keeps the result in the user's cache."""

import fcntl
import hashlib
import logging
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

logger = logging.getLogger(__name__)

SOURCE_FOLDER = Path(__file__).parent

# Never -ffast-math: NaN must stay NaN, and the order of additions is part of the contract. Products
# and sums are fused where the sources say so and nowhere else, see vec.h.
FLAGS = ("-std=c++17", "-O3", "-fPIC", "-fno-math-errno", "-ffp-contract=off", "-pthread")

# Tried in this order: some compilers do not know the machine.
VARIANTS = (("-march=native",), ())

_COMPILE_LIMIT_S = 120
_SEAL_BYTES = 16


class BuildError(Exception):
    """There is no compiler, or it does not accept the sources; the message says which."""


def library_path() -> Path:
    """The built library, from the cache or built now.

    Raises BuildError, or OSError if the cache cannot be written.
    """
    compiler = find_compiler()
    folder = _cache_folder()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = folder / f"kernels-{cache_key(compiler)}.so"
    if _is_whole(path):
        return path
    with open(path.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _is_whole(path):  # Else another process built it while we waited.
            _build(compiler, path)
    return path


def cache_key(compiler: list[str]) -> str:
    """Identifies everything that the built code depends on."""
    version = subprocess.run(
        [*compiler, "--version"], capture_output=True, timeout=_COMPILE_LIMIT_S, check=False
    )
    parts = [shlex.join(compiler).encode(), version.stdout, repr((FLAGS, VARIANTS)).encode()]
    parts.append(_cpu_features())
    for source in sorted(SOURCE_FOLDER.glob("*.h")) + sorted(SOURCE_FOLDER.glob("*.cpp")):
        parts += [source.name.encode(), source.read_bytes()]
    digest = hashlib.blake2b(digest_size=12)
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()


def find_compiler() -> list[str]:
    chosen = os.environ.get("CXX")
    for command in [chosen] if chosen else ["g++", "clang++", "c++"]:
        words = shlex.split(command)
        if words and shutil.which(words[0]):
            return words
    raise BuildError(f"no C++ compiler found (looked for {chosen or 'g++, clang++, c++'})")


def _cache_folder() -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "octavo" / "kernels"


def _cpu_features() -> bytes:
    """What -march=native depends on: one line for the machine, one for its instruction sets."""
    try:
        lines = Path("/proc/cpuinfo").read_bytes().splitlines()
    except OSError:
        lines = []
    features = [line for line in lines if line.startswith((b"flags", b"Features"))]
    return platform.machine().encode() + b"\n" + b"".join(features[:1])


def _build(compiler: list[str], path: Path) -> None:
    start = time.monotonic()
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        for variant in VARIANTS:
            errors = _compile([*compiler, *FLAGS, *variant], Path(scratch))
            if not errors:
                built = Path(scratch) / "kernels.so"
                built.write_bytes(_sealed(built.read_bytes()))
                os.replace(built, path)
                logger.info("built the CPU kernels in %.1f s: %s", time.monotonic() - start, path)
                return
    lines = errors.splitlines()
    first = next((line for line in lines if "error" in line), lines[0])
    raise BuildError(f"{shlex.join(compiler)} cannot build the CPU kernels: {first}")


def _sealed(content: bytes) -> bytes:
    """The file with its own digest at the end, where a loader does not look.

    Loading a library that a full disk has cut short does not fail: it kills the process.
    """
    return content + hashlib.blake2b(content, digest_size=_SEAL_BYTES).digest()


def _is_whole(path: Path) -> bool:
    return path.exists() and _sealed(path.read_bytes()[:-_SEAL_BYTES]) == path.read_bytes()


def _compile(command: list[str], folder: Path) -> str:
    """Compile the sources side by side and link them; returns what the compiler complained of."""
    sources = sorted(SOURCE_FOLDER.glob("*.cpp"))
    objects = [folder / f"{source.stem}.o" for source in sources]

    def compile_one(source: Path, target: Path) -> str:
        return _run([*command, "-c", str(source), "-o", str(target)])

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        errors = "".join(pool.map(compile_one, sources, objects))
    return errors or _run([*command, "-shared", *map(str, objects), "-o", f"{folder}/kernels.so"])


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, timeout=_COMPILE_LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        return f"{command[0]} took longer than {_COMPILE_LIMIT_S} s"
    if done.returncode == 0:
        return ""
    return done.stderr.decode(errors="replace") or f"exit status {done.returncode}"
