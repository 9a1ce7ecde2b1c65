"""What a run has found so far, in a file that is whole at any moment."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Part:
    """One table.

    Attributes:
        rows: yields them as they are measured; is given the seconds that it may take.
        limit_s: the most of it.
    """

    name: str
    rows: Callable[[float], Iterator[Row]]
    limit_s: float


class Report:
    """The rows so far, by table."""

    def __init__(self, path: Path, machine: Row) -> None:
        self._path = path
        self.tables: dict[str, list[Row]] = {}
        self._machine = machine
        self.is_good = True
        self._write()

    def run(self, parts: list[Part], deadline_s: float) -> None:
        """Fill one table after another; one that fails is told, and the next begun."""
        for part in parts:
            self.tables[part.name] = []
            left_s = min(part.limit_s, deadline_s - time.monotonic())
            ends_s = time.monotonic() + left_s
            try:
                if left_s <= 0:
                    raise TimeoutError("not begun")
                for row in part.rows(left_s):
                    self._add(part.name, row)
                    self.is_good &= row.get("is_right", True) and "error" not in row
                    if time.monotonic() > ends_s:
                        raise TimeoutError("the rest was not begun")
            except Exception as error:  # noqa: BLE001 - whatever it is, the other tables are wanted
                self._add(part.name, {"error": f"{type(error).__name__}: {error}"})
                self.is_good = False

    def _add(self, name: str, row: Row) -> None:
        self.tables[name].append(row)
        self._write()
        print(f"{name:<9} {'  '.join(map(str, row.values()))}", flush=True)

    def _write(self) -> None:
        content = {"benchmark": "gpu_check", "machine": self._machine, **self.tables}
        unfinished = self._path.with_suffix(".tmp")
        unfinished.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
        unfinished.replace(self._path)
