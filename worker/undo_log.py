"""Writes into arrays that can be taken back: a plan is applied as a whole or not at all."""

from typing import Any

from numpy.typing import NDArray


class UndoLog:
    """Remembers what each write replaced, until the next `clear`."""

    def __init__(self) -> None:
        self._replaced: list[tuple[NDArray[Any], Any, Any]] = []

    def write(self, array: NDArray[Any], index: Any, value: Any) -> None:
        """Do `array[index] = value`."""
        self._replaced.append((array, index, array[index].copy()))
        array[index] = value

    def roll_back(self) -> None:
        """Restore every array as it was at the last `clear`."""
        for array, index, value in reversed(self._replaced):
            array[index] = value
        self._replaced.clear()

    def clear(self) -> None:
        self._replaced.clear()
