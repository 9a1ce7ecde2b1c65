"""Tables of launches: what is written is read, and what cannot be is refused, with its place."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octavo.kernels.gpu.launch_table import LaunchTable, LaunchTableError, Measured, read_table


class Shape(NamedTuple):
    kind: str
    num_tokens: int


class Launch(NamedTuple):
    block_m: int
    num_warps: int
    num_stages: int


def is_possible(shape: Shape, launch: Launch) -> bool:
    return launch.block_m <= shape.num_tokens


SHAPES = st.builds(Shape, st.text(max_size=5), st.integers(16, 2**20))
TIMES = st.floats(0, 1e6)
MEASURED = st.builds(
    Measured,
    launch=st.none() | st.just(Launch(16, 4, 3)),
    case=st.text(max_size=20),
    us=TIMES,
    reasoned_us=TIMES,
    percent_of_limit=TIMES,
)


def read(path: Path) -> LaunchTable[Shape, Launch]:
    return read_table(path, Shape, Launch, is_possible)


@given(
    gpu=st.text(max_size=20),
    versions=st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3),
    measured=st.dictionaries(SHAPES, MEASURED, max_size=4),
)
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory,
    gpu: str,
    versions: dict[str, str],
    measured: dict[Shape, Measured[Launch]],
) -> None:
    table = LaunchTable(gpu, 90, versions, measured)
    path = tmp_path_factory.mktemp("tables") / "table.json"
    path.write_text(table.text())
    assert read(path) == table


def test_a_file_has_a_line_for_each_shape() -> None:
    rows: dict[Shape, Measured[Launch]] = {
        Shape("fp8", 2**i): Measured(None, "a case", 1.0, 1.0, 50.0) for i in range(4, 7)
    }
    lines = LaunchTable("GPU", 90, {"triton": "3.6.0"}, rows).text().splitlines()
    assert ['"num_tokens"' in line for line in lines] == [False, True, True, True, False]


def changed(change: Callable[[dict[str, Any]], object]) -> str:
    """Return a table with one shape, of which `change` made something else."""
    measured = {Shape("fp8", 64): Measured(Launch(32, 4, 3), "a case", 1.0, 1.5, 50.0)}
    content = json.loads(LaunchTable("GPU", 90, {}, measured).text())
    change(content)
    return json.dumps(content)


def in_launch(**numbers: Any) -> Callable[[dict[str, Any]], object]:
    return lambda content: content["measured"][0]["launch"].update(numbers)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (in_launch(block_x=16), "num_tokens=64.*block_x is unknown"),
        (in_launch(block_m=48), "num_tokens=64.*block_m=48 is no power of 2"),
        (in_launch(block_m=8), "num_tokens=64.*block_m=8 is not in 16"),
        (in_launch(block_m="32"), "num_tokens=64.*block_m='32' is no int"),
        (in_launch(num_warps=6), "num_tokens=64.*num_warps=6 is no power of 2"),
        (in_launch(num_stages=0), "num_tokens=64.*num_stages=0 is not in 1..8"),
        (in_launch(block_m=128), "num_tokens=64.*the kernel takes no such launch"),
        (lambda content: content["measured"][0]["launch"].pop("num_warps"), "num_warps is missing"),
        (lambda content: content["measured"][0]["shape"].pop("kind"), "kind is missing"),
        (lambda content: content["measured"][0]["shape"].update(kind=None), "kind=None is no"),
        (lambda content: content["measured"][0].pop("us"), "us is missing"),
        (lambda content: content["measured"].append(content["measured"][0]), "there twice"),
        (lambda content: content.update(operation="x"), "operation is unknown"),
        (lambda content: content.pop("gpu"), "gpu is missing"),
        (lambda content: content.update(measured=5), "measured=5 is no .*list"),
        (lambda content: content.update(capability="90"), "capability='90' is no .*int"),
        (lambda content: content["measured"].append(5), "5 is no object"),
    ],
)
def test_a_table_that_cannot_be_is_refused_with_file_and_place(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], told: str
) -> None:
    path = tmp_path / "table.json"
    path.write_text(changed(change))
    with pytest.raises(LaunchTableError, match=f"{path}: .*{told}"):
        read(path)


def test_a_file_that_is_no_json_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    path.write_text("{")
    with pytest.raises(LaunchTableError, match=str(path)):
        read(path)
