"""What a benchmark sends: random prompts of given lengths, or those of a file."""

import json
import random
from dataclasses import dataclass
from pathlib import Path

from .startup import StartupError

# Token ids that the vocabulary of every model we serve has, and that stand for text in all of them.
_TOKEN_IDS = range(1000, 10_000)


@dataclass(frozen=True, slots=True)
class BenchPrompt:
    """A prompt, as text or as token ids, and how many tokens are to follow."""

    prompt: str | list[int]
    output_len: int


def make_workload(
    dataset: str, *, num_prompts: int, input_len: int, output_len: int, seed: int
) -> list[BenchPrompt]:
    """Return `num_prompts` prompts: `random` ones, or those of the file `dataset`, in its order.

    Raises StartupError if the file cannot be used.
    """
    if dataset == "random":
        draw = random.Random(seed)
        return [
            BenchPrompt(draw.choices(_TOKEN_IDS, k=input_len), output_len)
            for _ in range(num_prompts)
        ]
    prompts = _read(Path(dataset), output_len)
    # A short file is gone through again and again.
    return [prompts[i % len(prompts)] for i in range(num_prompts)]


def _read(path: Path, output_len: int) -> list[BenchPrompt]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise StartupError(
            f"--dataset {path}: cannot be read: {error}. Give `random` or a .jsonl file."
        ) from error
    prompts = [
        _parse(line, f"{path}, line {number}", output_len)
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]
    if not prompts:
        raise StartupError(f"--dataset {path}: holds no prompts.")
    return prompts


def _parse(line: str, place: str, output_len: int) -> BenchPrompt:
    """Read one line, in the form of vLLM's custom data sets: {"prompt", "output_tokens"}."""
    try:
        record = json.loads(line)
        prompt, length = record["prompt"], record.get("output_tokens", output_len)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise StartupError(
            f'{place}: give one object a line, such as {{"prompt": "Once upon a time"}}.'
        ) from error
    if not isinstance(prompt, str) or not isinstance(length, int) or length < 1:
        raise StartupError(
            f"{place}: prompt must be a text, and output_tokens a whole number of at least 1."
        )
    return BenchPrompt(prompt, length)
