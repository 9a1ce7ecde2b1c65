"""The rules of the tree that no tool checks: links, generated code, imports, captions."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.file_sizes import ROOT, source_files

FOLDERS = ("gateway", "kernels", "router", "scheduler", "worker")
GENERATED = ROOT / "octavo" / "v1"


def python_files() -> list[Path]:
    return [path for path in source_files() if path.suffix == ".py"]


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_package_links_to_the_folder(folder: str) -> None:
    link = ROOT / "octavo" / folder
    assert link.is_symlink() and not link.readlink().is_absolute()
    assert link.resolve() == ROOT / folder


def test_the_generated_code_is_that_of_the_protos(tmp_path: Path) -> None:
    protos = [str(path) for path in sorted((ROOT / "protos").rglob("*.proto"))]
    outputs = [f"--{kind}_out={tmp_path}" for kind in ("python", "pyi", "grpc_python")]
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{ROOT / 'protos'}", *outputs]
    subprocess.run([*command, *protos], check=True, timeout=60)
    fresh = {path.name: path.read_text() for path in (tmp_path / "octavo" / "v1").iterdir()}
    committed = {path.name: path.read_text() for path in GENERATED.iterdir() if "_pb2" in path.name}
    assert committed == fresh, "run `make protos`"


def test_every_file_opens_with_its_caption() -> None:
    without = [path for path in python_files() if not caption(path)]
    assert without == []


def caption(path: Path) -> str:
    docstring = ast.get_docstring(ast.parse(path.read_text())) or ""
    return docstring.partition("\n")[0]


def test_services_are_imported_as_parts_of_octavo() -> None:
    """A bare `import scheduler` works from the root of the repository only."""
    bare = [
        (str(path.relative_to(ROOT)), name)
        for path in python_files()
        for name in imported_modules(path)
        if name.partition(".")[0] in FOLDERS
    ]
    assert bare == []


def imported_modules(path: Path) -> list[str]:
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.append(node.module)
    return names


def test_a_folder_of_slow_tests_has_no_other() -> None:
    """`make test-fast` does not look into it, `make test` runs what is marked."""
    folders = [ROOT / "tests" / name for name in ("clients", "end_to_end")]
    files = [path for folder in folders for path in folder.glob("test_*.py")]
    mark = re.compile(r"^pytestmark = .*\bpytest\.mark\.slow\b", re.MULTILINE)
    assert files and [path for path in files if not mark.search(path.read_text())] == []


@pytest.mark.parametrize(
    "module",
    ["octavo", "octavo.gateway.server", "octavo.router.server", "octavo.scheduler.server"],
)
def test_only_the_worker_needs_torch(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT.parent, timeout=60)
    assert done.returncode == 0


def test_every_shared_module_is_bound_to_import_no_service() -> None:
    """The contract lists them one by one, as import-linter needs it."""
    configuration = tomllib.loads((ROOT / "pyproject.toml").read_text())
    contracts = configuration["tool"]["importlinter"]["contracts"]
    (contract,) = [each for each in contracts if each["name"].startswith("What the services share")]
    modules = {f"octavo.{path.stem}" for path in (ROOT / "octavo").glob("*.py")}
    # The composition root of the offline API, which is in three files, and what measures it.
    offline = {"llm", "offline_engine", "offline_requests", "bench_offline"}
    modules -= {"octavo.__init__", *(f"octavo.{name}" for name in offline)}
    assert set(contract["source_modules"]) - {"octavo.v1"} == modules
    assert contract["forbidden_modules"] == sorted(f"octavo.{folder}" for folder in FOLDERS)
