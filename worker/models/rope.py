"""The table of rotary position embeddings: cos and sin of every position's angles.

Sources: RoFormer (Su et al., 2021); the scaling rule of Llama 3.1 (Meta, 2024).
"""

import math

import torch
from torch import Tensor

from .config import (
    FrequencyDivisors,
    LinearRopeScaling,
    Llama3RopeScaling,
    ModelConfig,
)


def cos_sin_table(config: ModelConfig, num_positions: int) -> Tensor:
    """Return float32 [num_positions, head_dim]: cos of the head_dim / 2 angles, then their sin."""
    positions = torch.arange(num_positions, dtype=torch.float32)
    angles = torch.outer(positions, inverse_frequencies(config))
    return torch.cat((angles.cos(), angles.sin()), dim=-1)


def inverse_frequencies(config: ModelConfig) -> Tensor:
    """Return the angle between neighbouring positions, float32 [head_dim / 2], scaled."""
    exponents = torch.arange(0, config.head_dim, 2, dtype=torch.float32) / config.head_dim
    frequencies = 1.0 / config.rope_theta**exponents
    match config.rope_scaling:
        case None:
            return frequencies
        case LinearRopeScaling(factor):
            return frequencies / factor
        case FrequencyDivisors(divisors):
            return frequencies / torch.tensor(divisors)
        case Llama3RopeScaling() as scaling:
            return _scale_as_llama3(frequencies, scaling)


def _scale_as_llama3(frequencies: Tensor, scaling: Llama3RopeScaling) -> Tensor:
    # Wavelengths by how often they repeat within the original context:
    #   more than high_freq_factor times   kept
    #   less than low_freq_factor times    divided by factor
    #   in between                         blended, linearly in the number of repeats
    repeats = scaling.original_max_position_embeddings / (2 * math.pi / frequencies)
    span = scaling.high_freq_factor - scaling.low_freq_factor
    kept = ((repeats - scaling.low_freq_factor) / span).clamp(0, 1)
    return (1 - kept) * frequencies / scaling.factor + kept * frequencies
