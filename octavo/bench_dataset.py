"""Prompts for a benchmark out of a file: vLLM's custom form, or ShareGPT's conversations."""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .startup import StartupError

# ShareGPT has texts and no lengths. No tokenizer is at hand for any server's model; of English,
# a token of the usual vocabularies is four characters.
_CHARACTERS_OF_TOKEN = 4

# Conversations outside these lengths are left out, as in `vllm bench`.
_LEAST_TOKENS = 4
_MOST_PROMPT_TOKENS = 1024
_MOST_TOKENS = 2048


@dataclass(frozen=True, slots=True)
class BenchPrompt:
    """A prompt, as text or as token ids, and how many tokens are to follow."""

    prompt: str | list[int]
    output_len: int


def read_dataset(path: Path, output_len: int, seed: int) -> list[BenchPrompt]:
    """Return the prompts of a file: a list of conversations in JSON, or one object a line.

    Args:
        output_len: tokens of an output for which the file says nothing.
        seed: conversations come in an order that depends on it, lines as they stand.
    Raises:
        StartupError: the file cannot be used; the text says where it is wrong.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise StartupError(
            f"--dataset {path}: cannot be read: {error}. Give `random` or a .json or .jsonl file."
        ) from error
    if text.lstrip().startswith("["):
        prompts = list(_conversations(text, path))
        random.Random(seed).shuffle(prompts)
    else:
        prompts = [
            _line(line, f"{path}, line {number}", output_len)
            for number, line in enumerate(text.splitlines(), start=1)
            if line.strip()
        ]
    if not prompts:
        raise StartupError(f"--dataset {path}: holds no prompts that can be used.")
    return prompts


def _conversations(text: str, path: Path) -> Iterator[BenchPrompt]:
    """Yield each first question, with an output as long as its answer was."""
    try:
        for record in json.loads(text):
            turns: list[dict[str, Any]] = record["conversations"]
            if len(turns) < 2:
                continue
            question, answer = (str(turn["value"]) for turn in turns[:2])
            prompt_len, output_len = (
                len(each) // _CHARACTERS_OF_TOKEN for each in (question, answer)
            )
            if (
                min(prompt_len, output_len) >= _LEAST_TOKENS
                and prompt_len <= _MOST_PROMPT_TOKENS
                and prompt_len + output_len <= _MOST_TOKENS
            ):
                yield BenchPrompt(question, output_len)
    except (ValueError, LookupError, TypeError) as error:
        raise StartupError(
            f"--dataset {path}: not a list of ShareGPT conversations ({error!r}); each has"
            ' "conversations": [{"from": "human", "value": TEXT}, {"from": "gpt", ...}].'
        ) from error


def _line(line: str, place: str, output_len: int) -> BenchPrompt:
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
