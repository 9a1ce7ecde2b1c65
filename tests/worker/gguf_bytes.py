"""Makes blocks of GGUF's K types, which its package reads but does not write."""

import gguf
import numpy as np

# Where each type has numbers in half precision.
_HALVES = {"Q4_K": (0, 2), "Q6_K": (208,)}


def random_blocks(kind: gguf.GGMLQuantizationType, rows: int, columns: int) -> np.ndarray:
    """Return uint8 [rows, bytes] of any numbers, but for scales, which are finite and small."""
    block_weights, block_bytes = gguf.constants.GGML_QUANT_SIZES[kind]
    random = np.random.default_rng(0)
    blocks = random.integers(0, 256, (rows, columns // block_weights, block_bytes), np.uint8)
    for offset in _HALVES[kind.name]:
        scales = random.uniform(1e-3, 1e-2, (*blocks.shape[:2], 1)).astype(np.float16)
        blocks[:, :, offset : offset + 2] = scales.view(np.uint8)
    return blocks.reshape(rows, -1)
