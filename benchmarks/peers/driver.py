"""The inside of an engine's process: one operation a line comes in, one answer a line goes out.

Imports the standard library only, because it runs in each peer's own environment.
"""

import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


class Driver:
    """Owns standard output from the start, so that nothing an engine prints gets among answers."""

    def __init__(self) -> None:
        self._answers = os.fdopen(os.dup(1), "w", buffering=1)
        os.dup2(2, 1)

    def serve(self, operations: Mapping[str, Callable[..., Any]]) -> None:
        """Say that the engine is ready; run operations until standard input ends."""
        self._answer(None)
        for line in sys.stdin:
            call = json.loads(line)
            self._answer(operations[call["operation"]](**call["arguments"]))

    def _answer(self, answer: Any) -> None:
        self._answers.write(json.dumps(answer) + "\n")


def read_requests(path: str) -> list[tuple[list[int], int]]:
    """Return prompts and output lengths of a file that `write_requests` wrote."""
    return [(prompt, output_len) for prompt, output_len in json.loads(Path(path).read_text())]


def result(
    duration_s: float, outputs: list[tuple[list[int], list[int]]], num_cached_tokens: int | None
) -> dict[str, Any]:
    """Return the answer to a `generate`: of each output, the prompt's token ids and its own."""
    return {
        "duration_s": duration_s,
        "num_input_tokens": sum(len(prompt) for prompt, _ in outputs),
        "num_output_tokens": sum(len(tokens) for _, tokens in outputs),
        "num_cached_tokens": num_cached_tokens,
    }
