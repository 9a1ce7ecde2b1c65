"""octavo.worker.memory: against psutil, and against a container's limits."""

from pathlib import Path

import psutil
import pytest

from octavo.worker import memory


def test_without_a_container_it_is_the_machine_that_counts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    assert memory.machine_bytes() == psutil.virtual_memory().total
    # Other programs take and free memory in between.
    assert abs(memory.available_bytes() - psutil.virtual_memory().available) < 1 << 30
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.machine_bytes() == psutil.virtual_memory().total


def test_in_a_container_its_own_use_counts_but_not_its_page_cache(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    (tmp_path / "memory.max").write_text("9000000\n")
    (tmp_path / "memory.current").write_text("5000000\n")
    (tmp_path / "memory.stat").write_text("anon 3000000\ninactive_file 1000000\n")
    assert memory.machine_bytes() == 9_000_000
    assert memory.available_bytes() == 5_000_000


def test_the_resident_memory_is_what_the_system_says() -> None:
    assert memory.resident_bytes() == pytest.approx(psutil.Process().memory_info().rss, rel=0.01)
