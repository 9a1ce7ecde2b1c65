"""Packs numbers of 4 bits as AWQ and GPTQ are described to."""

import torch
from torch import Tensor

AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
GPTQ_ORDER = (0, 1, 2, 3, 4, 5, 6, 7)


def pack(numbers: Tensor, order: tuple[int, ...] = GPTQ_ORDER) -> Tensor:
    """Pack eight neighbours of a row into an int32, number order[i] in the i-th four bits."""
    words = torch.zeros(len(numbers), numbers.shape[1] // 8, dtype=torch.int64)
    for place, column in enumerate(order):
        words |= numbers[:, column::8].long() << (4 * place)
    return words.to(torch.int32)
