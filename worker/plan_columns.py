"""The rows of a step as arrays: what a checked plan says of each row with work."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class PlanColumns:
    """The columns of a checked plan, one entry for each row with work."""

    row: NDArray[np.intp]
    num_new_tokens: NDArray[np.int64]
    needs_sample: NDArray[np.bool_]

    @property
    def is_decode(self) -> bool:
        """Whether each row computes its last token, and samples the next."""
        return bool(self.needs_sample.all() and (self.num_new_tokens == 1).all())
