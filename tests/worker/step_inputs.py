"""Writes the input of a forward pass by hand."""

import torch

from octavo.kernels.paged_tokens import PagedTokens
from octavo.worker.models.decoder import StepInput


def step_input(chunks: list[tuple[list[int], int, list[int]]], block_size: int) -> StepInput:
    """Return the input that computes, for each (tokens, number already computed, blocks), the rest.

    Logits are wanted after every token.
    """
    positions = [torch.arange(done, len(tokens)) for tokens, done, _ in chunks]
    slots = [
        torch.tensor(blocks)[p // block_size] * block_size + p % block_size
        for p, (_, _, blocks) in zip(positions, chunks, strict=True)
    ]
    num_new = torch.tensor([0] + [len(p) for p in positions])
    return StepInput(
        input_ids=torch.tensor(
            [token for tokens, done, _ in chunks for token in tokens[done:]], dtype=torch.int32
        ),
        tokens=PagedTokens(
            positions=torch.cat(positions),
            slot_mapping=torch.cat(slots),
            block_tables=torch.tensor([blocks for _, _, blocks in chunks], dtype=torch.int32),
            seq_lens=torch.tensor([len(tokens) for tokens, _, _ in chunks], dtype=torch.int32),
            query_start_loc=num_new.cumsum(0).int(),
        ),
        logits_indices=torch.arange(int(num_new.sum())),
    )
