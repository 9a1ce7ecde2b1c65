"""benchmarks.gpu_wheels: what is carried to a CUDA image is what Octavo needs and it lacks."""

from importlib import metadata

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from benchmarks.gpu_wheels import wanted_packages


def test_what_octavo_needs_is_carried_or_there_in_the_versions_of_this_environment() -> None:
    carried = dict(package.split("==") for package in wanted_packages())
    there = {"huggingface-hub", "numpy", "pyyaml", "safetensors", "tokenizers", "torch"}
    needs = {
        canonicalize_name(need.name)
        for need in map(Requirement, metadata.requires("octavo") or [])
        if need.marker is None or need.marker.evaluate({"extra": ""})
    }
    assert needs - carried.keys() == there & needs
    assert {"pytest", "pytest-asyncio", "pytest-timeout", "iniconfig"} <= carried.keys()
    assert carried["msgspec"] == metadata.version("msgspec")


def test_what_torch_and_transformers_bring_stays_as_it_is_there() -> None:
    carried = {package.split("==")[0] for package in wanted_packages()}
    assert not carried & {"torch", "sympy", "filelock", "jinja2", "numpy", "tokenizers", "octavo"}
