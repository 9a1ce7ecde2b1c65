"""Draws the next tokens on a device, with rules and log-probabilities, and appends none of them."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from octavo.kernels.logprobs import logprobs
from octavo.kernels.sampling import sample

from .device_penalties import DevicePenalties
from .device_rows import DeviceRows
from .device_step import SampledOutput
from .device_stream import DeviceStream
from .row_sampling import NO_LOGPROBS
from .rows import Rows
from .sampled_rows import SampledRows


class DeviceSampler:
    """Samples on the device; keeps the rules of the rows there.

    Attributes:
        positions: int64 [num_rows]; where the tokens of the step's sampled rows will be.
        token_ids: int64 [num_rows]; the tokens that were drawn for them, below 0 for none.
    """

    def __init__(self, rows: Rows, device_rows: DeviceRows, stream: DeviceStream) -> None:
        """`rows` say who has rules and wants log-probabilities, and how many tokens there are."""
        self._rows = rows
        self._device_rows = device_rows
        self._stream = stream
        self._penalties = DevicePenalties(rows, device_rows, stream)
        num_tokens = device_rows.num_tokens
        self._num_tokens = torch.zeros_like(num_tokens)
        self.positions = torch.zeros_like(num_tokens, dtype=torch.int64)
        self.token_ids = torch.zeros_like(self.positions)

    def place(self, num_sampled: int) -> None:
        """Find the positions; after the plan's forks, before any token is appended."""
        sources, places = (
            self._device_rows.source_rows[:num_sampled],
            self._num_tokens[:num_sampled],
        )
        torch.index_select(self._device_rows.num_tokens, 0, sources, out=places)
        self.positions[:num_sampled].copy_(places)

    def draw_all(self, logits: Tensor) -> None:
        """Draw a token from each row's logits as they are, knowing nothing but the device's rows.

        Args:
            logits: float32 [num_sampled, vocab_size], of the first of the step's sampled rows.
        """
        self.place(len(logits))
        self.token_ids[: len(logits)].copy_(self._draw(logits, slice(0, len(logits))))

    def sample(
        self, logits: Tensor, sampled: SampledRows, some: slice, *, is_drawn: bool
    ) -> SampledOutput:
        """Draw a token for some of the step's sampled rows, whose positions are known.

        Args:
            logits: float32 [num_some, vocab_size]; changed by the rows' rules.
            some: which of `sampled` they are.
            is_drawn: whether `draw_all` has seen these logits.
        """
        part = sampled.part(some)
        num_logprobs = self._rows.sampling.num_logprobs[part.rows]
        wanting = np.flatnonzero(num_logprobs != NO_LOGPROBS)
        places = self._uploaded(wanting) if len(wanting) else None
        # A copy: rules change the logits themselves.
        raw = None if places is None else logits.index_select(0, places)
        has_rules = self._penalties.apply(logits, part)
        if is_drawn and not has_rules:
            # The next step may draw before these have been fetched.
            token_ids = self.token_ids[some].clone()
        else:
            token_ids = self._draw(logits, some)
            self.token_ids[some].copy_(token_ids)
        told = None
        if raw is not None and places is not None:
            drawn = token_ids.index_select(0, places)
            told = logprobs(raw, drawn, int(num_logprobs[wanting].max()))
        return SampledOutput(
            rows=part.rows,
            token_ids=token_ids,
            largest=logits.amax(dim=-1) if has_rules else None,
            logprobs=told,
            wanting=wanting,
            num_top=num_logprobs[wanting],
        )

    def draw_none(self, some: slice) -> None:
        """Leave some of the step's sampled rows without a token."""
        self.token_ids[some].fill_(-1)

    def _draw(self, logits: Tensor, some: slice) -> Tensor:
        rows = self._device_rows.sampled_rows[some]
        columns = self._device_rows.sampling.index_select(1, rows)
        temperature, top_p, min_p = columns[:3].view(torch.float32)
        return sample(
            logits,
            temperature=temperature,
            top_k=columns[3],
            top_p=top_p,
            min_p=min_p,
            seeds=self._device_rows.seed.index_select(0, rows).view(torch.int64).squeeze(1),
            # A token's noise depends on the position it will have.
            positions=self.positions[some],
        )

    def _uploaded(self, places: NDArray[np.intp]) -> Tensor:
        return self._stream.upload(places.astype(np.int32))
