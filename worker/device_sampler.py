"""Draws the next tokens on a device, with rules and log-probabilities, and appends none of them."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from octavo.kernels.logprobs import logprobs
from octavo.kernels.sampling import sample

from .device_penalties import DevicePenalties
from .device_rows import DeviceRows
from .device_step import StepOutput, Wanting
from .device_stream import DeviceStream
from .row_sampling import NO_LOGPROBS
from .rows import Rows
from .sampled_rows import SampledRows


class DeviceSampler:
    """Samples on the device; keeps the rules of the rows there."""

    def __init__(self, rows: Rows, device_rows: DeviceRows, stream: DeviceStream) -> None:
        """`rows` say who has rules and wants log-probabilities, and how many tokens there are."""
        self._rows = rows
        self._device_rows = device_rows
        self._stream = stream
        self._penalties = DevicePenalties(rows, device_rows, stream)

    def wanting(self, sampled: SampledRows) -> Wanting:
        """Return who wants log-probabilities."""
        num_logprobs = self._rows.sampling.num_logprobs[sampled.rows]
        places = np.flatnonzero(num_logprobs != NO_LOGPROBS)
        return Wanting(places=places, num_top=num_logprobs[places])

    def draw(self, logits: Tensor) -> Tensor:
        """Draw a token from each row's logits as they are; before any is appended.

        Args:
            logits: float32 [num_sampled, vocab_size], of the first of the step's sampled rows.
        """
        rows = self._device_rows.sampled_rows[: len(logits)]
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
            positions=self.positions(len(logits)),
        )

    def positions(self, num_sampled: int) -> Tensor:
        """Return where the tokens of the sampled rows will be; before any is appended."""
        sources = self._device_rows.source_rows[:num_sampled]
        return self._device_rows.num_tokens.index_select(0, sources).long()

    def sample(
        self, logits: Tensor, sampled: SampledRows, wanting: Wanting, drawn: Tensor | None
    ) -> StepOutput:
        """Draw a token for each sampled row; after the plan's forks, before tokens are appended.

        Args:
            logits: float32 [num_sampled, vocab_size]; changed by the rows' rules.
            drawn: what `draw` gives for them, if that is known.
        """
        if not len(sampled.rows):
            # As in a step that computes a chunk of a prompt; there is nothing to launch.
            none = self.positions(0)
            return StepOutput(token_ids=none, largest=None, logprobs=None, prompt_logprobs=())
        places = self._uploaded(wanting.places) if len(wanting.places) else None
        # A copy: rules change the logits themselves.
        raw = None if places is None else logits.index_select(0, places)
        has_rules = self._penalties.apply(logits, sampled)
        token_ids = self.draw(logits) if drawn is None or has_rules else drawn
        told = None
        if raw is not None and places is not None:
            drawn = token_ids.index_select(0, places)
            told = logprobs(raw, drawn, int(wanting.num_top.max()))
        return StepOutput(
            token_ids=token_ids,
            largest=logits.amax(dim=-1) if has_rules else None,
            logprobs=told,
            prompt_logprobs=(),
        )

    def _uploaded(self, places: NDArray[np.intp]) -> Tensor:
        return self._stream.upload(places.astype(np.int32))
