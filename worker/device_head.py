"""What follows a forward pass on a device: logits, tokens, log-probabilities.

Logits are the largest numbers of a step. Where they, or what is computed of them, find no memory,
fewer rows are computed at a time; a row that finds none by itself fails, and no other with it.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from octavo.kernels.logprobs import Logprobs, logprobs

from .device_forward import ForwardOutput
from .device_logprobs import PromptLogprobs
from .device_rows import DeviceRows
from .device_sampler import DeviceSampler
from .device_step import SampledOutput, StepOutput
from .device_stream import DeviceStream
from .logprobs import LOGITS_SLICE, PromptRun
from .models.decoder import Decoder
from .rows import Rows
from .sampled_rows import SampledRows
from .step_parts import run_in_parts, slice_halves

NO_MEMORY = "The worker's device has no memory left for this request; try again or shorten it."


class DeviceHead:
    """The head of one runner's model, with what is asked of its logits."""

    def __init__(
        self,
        decoder: Decoder,
        rows: Rows,
        device_rows: DeviceRows,
        sampler: DeviceSampler,
        stream: DeviceStream,
    ) -> None:
        self._decoder = decoder
        self._rows = rows
        self._device_rows = device_rows
        self._sampler = sampler
        self._stream = stream

    def answer(
        self, computed: ForwardOutput, runs: Sequence[PromptRun], sampled: SampledRows
    ) -> StepOutput:
        """Compute what is to be told of a step; tokens are left where the sampler keeps them.

        Args:
            runs: of prompts, whose hidden states follow those after which a token is sampled.
        """
        failures: dict[int, str] = {}
        counts = [sampled.num_logits, *(run.num_positions for run in runs)]
        last, *of_runs = torch.split(computed.hidden, counts)
        prompts = self._prompts(runs, of_runs, failures)
        return StepOutput(self._samples(computed, last, sampled, failures), prompts, failures)

    def _samples(
        self,
        computed: ForwardOutput,
        hidden: Tensor,
        sampled: SampledRows,
        failures: dict[int, str],
    ) -> list[SampledOutput]:
        if not len(sampled.rows):
            # As in a step that computes a chunk of a prompt; there is nothing to launch.
            return []
        has_forks = len(sampled.rows) > sampled.num_logits
        given = None if has_forks else computed.logits
        if given is None:
            self._sampler.place(len(sampled.rows))

        def sample(some: slice) -> SampledOutput | None:
            nonlocal given
            # Rules change logits: for another attempt they are computed anew.
            logits, given = given, None
            is_drawn = logits is not None
            if logits is None:
                logits = self._decoder.logits(self._states(hidden, sampled, some))
            return self._sampler.sample(logits, sampled, some, is_drawn=is_drawn)

        def give_up(some: slice) -> None:
            self._sampler.draw_none(some)
            failures.update(dict.fromkeys(sampled.rows[some].tolist(), NO_MEMORY))

        everything, free = slice(0, len(sampled.rows)), torch.cuda.empty_cache
        parts = run_in_parts(sample, everything, slice_halves, free, give_up)
        return [part for part in parts if part is not None]

    def _states(self, hidden: Tensor, sampled: SampledRows, some: slice) -> Tensor:
        """Return the hidden states that some rows are sampled from: forked ones from others'."""
        places = sampled.logits[some]
        if len(places) == len(hidden) == sampled.num_logits:
            return hidden
        return hidden.index_select(0, self._stream.upload(places.astype(np.int32)))

    def _prompts(
        self, runs: Sequence[PromptRun], hidden: Sequence[Tensor], failures: dict[int, str]
    ) -> list[PromptLogprobs]:
        prompts = []
        for run, states in zip(runs, hidden, strict=True):
            try:
                prompts.append(self._prompt(run, states))
            except torch.OutOfMemoryError:
                failures[run.row] = NO_MEMORY
        return prompts

    def _prompt(self, run: PromptRun, hidden: Tensor) -> PromptLogprobs:
        num_top = int(self._rows.sampling.num_prompt_logprobs[run.row])
        known = self._device_rows.token_ids[run.row, run.first_position :]

        def tell(some: slice) -> Logprobs:
            return logprobs(self._decoder.logits(hidden[some]), known[some].long(), num_top)

        starts = range(0, run.num_positions, LOGITS_SLICE)
        slices = [slice(i, min(i + LOGITS_SLICE, run.num_positions)) for i in starts]
        free = torch.cuda.empty_cache
        told = [part for some in slices for part in run_in_parts(tell, some, slice_halves, free)]
        where = slice(run.first_position, run.first_position + run.num_positions)
        return PromptLogprobs(run, self._rows.token_ids[run.row, where].copy(), num_top, told)
