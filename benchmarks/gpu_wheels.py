"""Downloads what a CUDA image lacks, as wheels, so that `make gpu-check` needs no network there.

    python -m benchmarks.gpu_wheels DIRECTORY

The image has torch, Triton and transformers. The rest of what Octavo needs, in the versions of the
environment that this runs in, and what tests want, go into the directory.
"""

import subprocess
import sys
from importlib import metadata
from pathlib import Path

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

IMAGE_PYTHON = "3.12"
MAX_BYTES = 64 * 2**20

_WANTED = ("octavo", "hypothesis", "pytest", "pytest-asyncio", "pytest-timeout", "pytest-xdist")
# With what it needs itself.
_TORCH = ("torch",)
# Beside transformers of another version than ours, which these suit.
_TRANSFORMERS_HAS = {"hf-xet", "huggingface-hub", "numpy", "pyyaml", "safetensors", "tokenizers"}

# pip takes a wheel for one of these exactly.
_PLATFORMS = (*(f"manylinux_2_{minor}_x86_64" for minor in range(17, 40)), "manylinux2014_x86_64")


def closure(names: tuple[str, ...]) -> set[str]:
    """Return the packages and all that they need in the image, extras left out."""
    environment = {str(key): str(value) for key, value in default_environment().items()}
    environment |= {
        "python_version": IMAGE_PYTHON,
        "python_full_version": f"{IMAGE_PYTHON}.0",
        "extra": "",
    }
    found: set[str] = set()
    queue = [canonicalize_name(name) for name in names]
    while queue:
        if (name := queue.pop()) in found:
            continue
        found.add(name)
        try:
            needs = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            # Needed only where the image is unlike this machine: older Pythons, CUDA itself.
            continue
        for need in map(Requirement, needs):
            if need.marker is None or need.marker.evaluate(environment):
                queue.append(canonicalize_name(need.name))
    return found


def wanted_packages() -> list[str]:
    """Return name==version of what the image lacks."""
    names = closure(_WANTED) - closure(_TORCH) - _TRANSFORMERS_HAS - {"octavo"}
    return [f"{name}=={metadata.version(name)}" for name in sorted(names)]


def download(directory: Path) -> int:
    """Fill the directory; return the bytes of its wheels."""
    directory.mkdir(parents=True, exist_ok=True)
    for stale in directory.glob("*.whl"):
        stale.unlink()
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--only-binary=:all:", f"--python-version={IMAGE_PYTHON}", "--implementation=cp"]
    command += [f"--platform={platform}" for platform in _PLATFORMS]
    subprocess.run([*command, f"--dest={directory}", *wanted_packages()], check=True)
    return sum(wheel.stat().st_size for wheel in directory.glob("*.whl"))


def main() -> int:
    directory = Path(sys.argv[1])
    num_bytes = download(directory)
    print(f"{directory}: {len(list(directory.glob('*.whl')))} wheels, {num_bytes / 2**20:.1f} MiB")
    if num_bytes > MAX_BYTES:
        print(f"That is over {MAX_BYTES // 2**20} MiB, more than is carried to a GPU.")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
