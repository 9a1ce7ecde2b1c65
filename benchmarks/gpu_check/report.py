"""What a run has found so far, in a file that is whole at any moment."""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from octavo.bench_report import spread_ms

Row = dict[str, Any]


def spread_row(name: str, seconds: Sequence[float]) -> Row:
    """Return median and 99th percentile, in milliseconds; nothing of nothing."""
    spread = spread_ms(seconds) or {}
    return {f"{name}_{each}": spread[each] for each in ("p50", "p99") if each in spread}


@dataclass(frozen=True, slots=True)
class Part:
    """One table.

    Attributes:
        rows: yields them as they are measured; is given the seconds that it may take.
        needs_s: what is kept for it, whatever those before it take.
    """

    name: str
    rows: Callable[[float], Iterator[Row]]
    needs_s: float


class Report:
    """The rows so far, by table."""

    def __init__(
        self, path: Path, machine: Row, bars: Callable[[Mapping[str, list[Row]]], list[Row]]
    ) -> None:
        """`bars` says what the tables mean for our goals."""
        self._path = path
        self.tables: dict[str, list[Row]] = {}
        self._machine = machine
        self._bars = bars
        self.is_good = True
        self._write()

    @property
    def content(self) -> dict[str, Any]:
        """All of it, with what it says of our goals, as it stands in the file."""
        found = {"benchmark": "gpu_check", "machine": self._machine, **self.tables}
        return found | {"bars": self._bars(self.tables)}

    def run(self, parts: Sequence[Part], deadline_s: float) -> None:
        """Fill one table after another; one that fails is told, and the next begun.

        Each may take what is kept for it, and what those before it have left.
        """
        for number, part in enumerate(parts, start=1):
            self.tables[part.name] = []
            kept_s = sum(later.needs_s for later in parts[number:])
            left_s = deadline_s - kept_s - time.monotonic()
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
        told = [str(value) for value in row.values() if not isinstance(value, list | dict)]
        print(f"{name:<9} {'  '.join(told)}", flush=True)

    def _write(self) -> None:
        unfinished = self._path.with_suffix(".tmp")
        unfinished.write_text(json.dumps(self.content, indent=2, ensure_ascii=False) + "\n")
        unfinished.replace(self._path)
