"""What a benchmark sends: random prompts of given lengths, or those of a file."""

import random
from pathlib import Path

from .bench_dataset import BenchPrompt, read_dataset

# Below the first there are special tokens and single bytes; almost every vocabulary has the last.
_FIRST_TOKEN_ID = 1000
USUAL_VOCAB_SIZE = 10_000


def make_workload(
    dataset: str,
    *,
    num_prompts: int,
    input_len: int,
    output_len: int,
    seed: int,
    vocab_size: int = USUAL_VOCAB_SIZE,
) -> list[BenchPrompt]:
    """Return `num_prompts` prompts: `random` token ids below `vocab_size`, or those of a file.

    Raises StartupError if the file cannot be used.
    """
    if dataset == "random":
        draw = random.Random(seed)
        token_ids = range(min(_FIRST_TOKEN_ID, vocab_size // 2), vocab_size)
        return [
            BenchPrompt(draw.choices(token_ids, k=input_len), output_len)
            for _ in range(num_prompts)
        ]
    prompts = read_dataset(Path(dataset), output_len, seed)
    # A short file is gone through again and again.
    return [prompts[i % len(prompts)] for i in range(num_prompts)]
