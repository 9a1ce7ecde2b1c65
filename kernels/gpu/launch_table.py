"""The launches of one operation that were measured on one GPU: a file, read with suspicion.

    {"gpu": "NVIDIA H200", "capability": 90, "versions": {"triton": "3.6.0"}, "measured": [
        {"shape": {"num_tokens": 16, ...}, "launch": {"block_m": 16, ...},
         "case": "16 x 4096 to 28672", "us": 9.8, "reasoned_us": 11.2, "percent_of_limit": 84}]}

It is data of a commit: benchmarks/tune_*.py write it, nothing does while serving.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

# Numbers that need not be powers of 2.
_COUNTS = ("num_stages", "programs_per_sm")
_MOST_OF = dict.fromkeys(_COUNTS, 8) | {"num_warps": 16}
# Of the other numbers, which are the sides of a product.
_LEAST_SIDE, _MOST_SIDE = 16, 1024

_HEAD = {"gpu": str, "capability": int, "versions": dict, "measured": list}
_NUMBERS = dict.fromkeys(("us", "reasoned_us", "percent_of_limit"), int | float)
_ROW = {"shape": dict, "launch": dict | None, "case": str} | _NUMBERS


# Of whole numbers and words; of whole numbers.
ShapeT = TypeVar("ShapeT", bound=NamedTuple)
LaunchT = TypeVar("LaunchT", bound=NamedTuple)


class LaunchTableError(ValueError):
    """A table that is none, or names a launch that cannot be; told with its file and the place."""


@dataclass(frozen=True, slots=True)
class Measured(Generic[LaunchT]):
    """What was found for a shape.

    Attributes:
        launch: the fastest; None where none was faster than the reasoned one by enough.
        case: what it was measured on.
        us: microseconds of a call with it.
        reasoned_us: the same with the reasoned launch.
        percent_of_limit: of the least time for what has to be moved and computed.
    """

    launch: LaunchT | None
    case: str
    us: float
    reasoned_us: float
    percent_of_limit: float


@dataclass(frozen=True, slots=True)
class LaunchTable(Generic[ShapeT, LaunchT]):
    """What was found on a GPU, by shape.

    Attributes:
        gpu: its name, as its driver tells it.
        capability: its compute capability, such as 90.
        versions: of what the launches were compiled and run with.
    """

    gpu: str
    capability: int
    versions: Mapping[str, str]
    measured: Mapping[ShapeT, Measured[LaunchT]]

    def text(self) -> str:
        """Return the content of a file, a line for each shape."""
        head = {"gpu": self.gpu, "capability": self.capability, "versions": dict(self.versions)}
        rows = [json.dumps(_row(shape, each)) for shape, each in self.measured.items()]
        lines = ",\n    ".join(rows)
        return f'{json.dumps(head)[:-1]}, "measured": [\n    {lines}\n]}}\n'


def read_table(
    path: Path,
    shape: type[ShapeT],
    launch: type[LaunchT],
    is_possible: Callable[[ShapeT, LaunchT], bool],
) -> LaunchTable[ShapeT, LaunchT]:
    """Read a file, or raise LaunchTableError.

    Args:
        is_possible: says whether the kernel takes a launch for a shape. How much of a GPU it takes
            is known only to who compiles it: `make aot` does, for every launch of every table.
    """
    try:
        content = json.loads(path.read_text())
        _expect(content, _HEAD)
        measured: dict[ShapeT, Measured[LaunchT]] = {}
        for row in content["measured"]:
            _expect(row, _ROW)
            key = _shape(shape, row.pop("shape"))
            if key in measured:
                raise LaunchTableError(f"{key} is there twice")
            found = row.pop("launch")
            try:
                chosen = None if found is None else _launch(launch, found)
                if chosen is not None and not is_possible(key, chosen):
                    raise LaunchTableError("the kernel takes no such launch")
            except LaunchTableError as error:
                raise LaunchTableError(f"{key}: {error}") from None
            measured[key] = Measured(chosen, **row)
    except (LaunchTableError, json.JSONDecodeError) as error:
        raise LaunchTableError(f"{path}: {error}") from None
    return LaunchTable(content["gpu"], content["capability"], content["versions"], measured)


def _row(shape: Any, measured: Measured[Any]) -> dict[str, Any]:
    launch = measured.launch and measured.launch._asdict()
    numbers = {name: getattr(measured, name) for name in _NUMBERS}
    return {"shape": shape._asdict(), "launch": launch, "case": measured.case, **numbers}


def _expect(content: Any, kinds: Mapping[str, Any]) -> None:
    """Raise unless content is an object with these keys and values of these types."""
    if not isinstance(content, dict):
        raise LaunchTableError(f"{content!r} is no object")
    for key in sorted(content.keys() - kinds):
        raise LaunchTableError(f"{key} is unknown")
    for key, kind in kinds.items():
        if key not in content:
            raise LaunchTableError(f"{key} is missing")
        if not isinstance(content[key], kind):
            name = getattr(kind, "__name__", kind)
            raise LaunchTableError(f"{key}={content[key]!r} is no {name}")


def _shape(shape: type[ShapeT], content: Any) -> ShapeT:
    _expect(content, dict.fromkeys(shape._fields, str | int))
    return shape._make(content[name] for name in shape._fields)


def _launch(launch: type[LaunchT], content: Any) -> LaunchT:
    _expect(content, dict.fromkeys(launch._fields, int))
    for name, number in content.items():
        least, most = (1, _MOST_OF[name]) if name in _MOST_OF else (_LEAST_SIDE, _MOST_SIDE)
        if not least <= number <= most:
            raise LaunchTableError(f"{name}={number} is not in {least}..{most}")
        if name not in _COUNTS and number & (number - 1):
            raise LaunchTableError(f"{name}={number} is no power of 2")
    return launch._make(content[name] for name in launch._fields)
