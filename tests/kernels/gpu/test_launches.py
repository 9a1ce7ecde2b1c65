"""Which launch an operation takes: a table's, where one is of this GPU, else the reasoned one."""

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from octavo.kernels.gpu import (
    decode_attention,
    decode_work,
    grouped_linear,
    launches,
    prefill_attention,
    prefill_launch,
    scaled_linear,
    w4a16_linear,
)
from octavo.kernels.gpu.architecture import Architecture, architecture_of, capability_of
from octavo.kernels.gpu.decode_work import DecodeLaunch, DecodeShape
from octavo.kernels.gpu.grouped_linear import GroupedLaunch, GroupedShape
from octavo.kernels.gpu.launch_table import LaunchTable, LaunchTableError, Measured
from octavo.kernels.gpu.launches import TABLES, Launches, gpu_name, rounded_up, table_path
from octavo.kernels.gpu.prefill_launch import PrefillLaunch, PrefillShape
from octavo.kernels.gpu.scaled_linear import ScaledShape
from octavo.kernels.gpu.tiles import TileLaunch
from octavo.kernels.gpu.w4a16_linear import Int4Shape

ALL: list[Launches[Any, Any]] = [
    decode_work.LAUNCHES,
    prefill_launch.LAUNCHES,
    scaled_linear.LAUNCHES,
    scaled_linear.BLOCK_LAUNCHES,
    w4a16_linear.LAUNCHES,
    grouped_linear.LAUNCHES,
]


class Shape(NamedTuple):
    size: int


class Launch(NamedTuple):
    tile: int


def reasoned(shape: Shape, architecture: Architecture) -> Launch:
    return Launch(16)


def table_of(device: str, *tiles: tuple[int, int | None]) -> LaunchTable[Shape, Launch]:
    """Return what was found on this machine: sizes and tiles."""
    this = torch.device(device)
    measured = {
        Shape(size): Measured(Launch(tile) if tile else None, "a case", 1.0, 1.5, 50.0)
        for size, tile in tiles
    }
    return LaunchTable(gpu_name(this), capability_of(this), {}, measured)


def launches_with(folder: Path, table: LaunchTable[Shape, Launch]) -> Launches[Shape, Launch]:
    path = table_path(folder, table.gpu, "doubled")
    path.parent.mkdir()
    path.write_text(table.text())
    return Launches("doubled", Shape, Launch, reasoned, folder=folder)


def test_a_measured_launch_comes_before_the_reasoned_one(device: str, tmp_path: Path) -> None:
    doubled = launches_with(tmp_path, table_of(device, (32, 64), (64, None)))
    chosen = [doubled.choose(Shape(size), torch.device(device)) for size in (32, 64, 128)]
    assert chosen == [Launch(64), Launch(16), Launch(16)]


def test_a_table_is_read_once(device: str, tmp_path: Path) -> None:
    doubled = launches_with(tmp_path, table_of(device, (32, 64)))
    first = doubled.choose(Shape(32), torch.device(device))
    table_path(tmp_path, gpu_name(torch.device(device)), "doubled").write_text("{")
    assert doubled.choose(Shape(32), torch.device(device)) is first
    assert doubled.choose(Shape(64), torch.device(device)) == Launch(16)


def test_a_table_of_another_capability_is_refused(device: str, tmp_path: Path) -> None:
    doubled = launches_with(tmp_path, replace(table_of(device, (32, 64)), capability=75))
    with pytest.raises(LaunchTableError, match="doubled.json: capability 75 is not "):
        doubled.choose(Shape(32), torch.device(device))


def test_a_pinned_launch_comes_before_all(device: str, tmp_path: Path) -> None:
    doubled = launches_with(tmp_path, table_of(device, (32, 64)))
    with pytest.raises(AssertionError, match="never launched"):
        doubled.pin(Shape(32), torch.device(device), Launch(128))
    doubled.choose(Shape(32), torch.device(device))
    doubled.pin(Shape(32), torch.device(device), Launch(128))
    assert doubled.choose(Shape(32), torch.device(device)) == Launch(128)


def test_what_any_table_can_choose_is_compiled_for_its_gpu(tmp_path: Path) -> None:
    ada = LaunchTable("RTX 4090", 89, {}, table_of("cpu", (32, 64), (64, None)).measured)
    doubled = launches_with(tmp_path, ada)
    wanted = list(doubled.to_compile([Shape(32)]))
    assert wanted[-1] == (Architecture.of(89), Shape(32), Launch(64))
    assert all(launch == Launch(16) for _, _, launch in wanted[:-1])
    assert Architecture.of(90) in {architecture for architecture, _, _ in wanted}


@pytest.mark.parametrize(
    ("module", "shape", "launch"),
    [
        (decode_attention, DecodeShape(16, 128, 2), DecodeLaunch(16, 1, 8, 2)),
        (prefill_attention, PrefillShape(16, 128, 2), PrefillLaunch(64, 16, 4, 2)),
        (scaled_linear, ScaledShape("int8", 16, 128, 128), TileLaunch(16, 64, 64, 8, 2)),
        (w4a16_linear, Int4Shape(128, 16, 128, 128), TileLaunch(16, 64, 128, 8, 2)),
        (grouped_linear, GroupedShape(2, 16, 128, 128), GroupedLaunch(32, 128, 32, 8, 2)),
    ],
)
def test_every_operation_compiles_what_its_tables_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: Any, shape: Any, launch: Any
) -> None:
    def compiled() -> set[tuple[Any, ...]]:
        return {
            (each.architecture, each.num_warps, each.num_stages, *each.constexprs.items())
            for each in module.aot_specializations()
        }

    before = compiled()
    operation = replace(module.LAUNCHES, folder=tmp_path)
    measured = {shape: Measured(launch, "a case", 1.0, 1.5, 50.0)}
    path = table_path(tmp_path, "RTX 4090", operation.operation)
    path.parent.mkdir()
    path.write_text(LaunchTable("RTX 4090", 89, {}, measured).text())
    monkeypatch.setattr(module, "LAUNCHES", operation)
    added = compiled() - before
    assert added
    for architecture, num_warps, num_stages, *constants in added:
        assert architecture == Architecture.of(89)
        assert (num_warps, num_stages) == (launch.num_warps, launch.num_stages)
        for name in ("tile", "rows", "block_m", "block_n"):
            assert dict(constants).get(name.upper()) in (None, getattr(launch, name, shape[0]))


@pytest.mark.parametrize("operation", ALL, ids=lambda each: each.operation)
def test_shipped_tables_can_be_read_and_lie_where_their_gpu_looks(
    operation: Launches[Any, Any],
) -> None:
    for path in TABLES.glob(f"*/{operation.operation}.json"):
        assert path == table_path(TABLES, operation.read(path).gpu, operation.operation)


def test_every_shipped_table_is_of_an_operation() -> None:
    names = {path.stem for path in TABLES.rglob("*") if path.is_file()}
    assert names <= {each.operation for each in ALL}


@pytest.mark.parametrize(
    ("size", "expected"), [(1, 16), (16, 16), (17, 32), (4096, 4096), (14_336, 16_384)]
)
def test_sizes_are_rounded_up(size: int, expected: int) -> None:
    assert rounded_up(size) == expected


def test_the_largest_steps_are_all_alike() -> None:
    assert launches.rounded_up_tokens(5000) == launches.rounded_up_tokens(100_000)


def test_the_interpreter_is_taken_to_be_a_hopper() -> None:
    assert architecture_of(torch.device("cpu")) == Architecture.of(90)
