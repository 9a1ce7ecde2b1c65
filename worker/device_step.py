"""A step that is on its way through a device: what there will be to tell of it, and when."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from octavo.kernels.logprobs import Logprobs
from octavo.v1.step_pb2 import RowError, StepResult

from .device_logprobs import PromptLogprobs, position_message
from .device_stream import DeviceStream, Fetch, Mark
from .sampled_rows import SampledRows
from .sampler import NO_NUMBERS, NO_TOKEN_LEFT


@dataclass(frozen=True, kw_only=True, slots=True)
class StepOutput:
    """What a step computes for the host; all tensors on the device, or all on the host.

    Attributes:
        token_ids: int64 [num_sampled]; below 0 where none could be drawn.
        largest: float32 [num_sampled], the largest logit after the rules; None where no row has
            any.
        logprobs: of the sampled tokens that want them; None if none do.
        prompt_logprobs: of the prompts' tokens that want them.
    """

    token_ids: Tensor
    largest: Tensor | None
    logprobs: Logprobs | None
    prompt_logprobs: Sequence[PromptLogprobs]

    @property
    def tensors(self) -> Iterator[Tensor]:
        yield self.token_ids
        if self.largest is not None:
            yield self.largest
        if self.logprobs is not None:
            yield from self.logprobs
        for prompt in self.prompt_logprobs:
            for part in prompt.slices:
                yield from part

    def with_tensors(self, tensors: Iterator[Tensor]) -> "StepOutput":
        """Return the same with other tensors, in the order of `tensors`."""

        def logprobs() -> Logprobs:
            return Logprobs._make(islice(tensors, len(Logprobs._fields)))

        return StepOutput(
            token_ids=next(tensors),
            largest=None if self.largest is None else next(tensors),
            logprobs=None if self.logprobs is None else logprobs(),
            prompt_logprobs=[
                replace(prompt, slices=[logprobs() for _ in prompt.slices])
                for prompt in self.prompt_logprobs
            ],
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanting:
    """The sampled rows that want log-probabilities.

    Attributes:
        places: where they are among the sampled rows.
        num_top: for each, how many of the best are told beside the token's own.
    """

    places: NDArray[np.intp]
    num_top: NDArray[np.int32]


class DeviceStep:
    """A PendingStep: everything of it is launched, and its numbers come as soon as they are."""

    def __init__(
        self,
        result: StepResult,
        sampled: SampledRows,
        wanting: Wanting,
        output: StepOutput,
        marks: Sequence[Mark],
        stream: DeviceStream,
    ) -> None:
        """Order the copies to the host.

        Args:
            result: what is known already; the rest is filled in.
            marks: before the step, between its forward pass and sampling, and behind it.
        """
        self._result = result
        self._sampled = sampled
        self._wanting = wanting
        self._output = output
        self._marks = marks
        self._fetch: Fetch = stream.fetch(list(output.tensors))

    def result(self) -> StepResult:
        """Wait for the device, and tell what the step brought."""
        output = self._output.with_tensors(iter(self._fetch.wait()))
        failed = self._tell_prompts(output)
        token_ids = output.token_ids.numpy()
        is_told = token_ids >= 0
        if failed:
            is_told &= ~np.isin(self._sampled.rows, list(failed))
        self._tell_failures(output, is_told, failed)
        self._result.token_ids.extend(token_ids[is_told].tolist())
        if output.logprobs is not None:
            columns = (self._wanting.places.tolist(), self._wanting.num_top.tolist())
            for i, (place, num_top) in enumerate(zip(*columns, strict=True)):
                if is_told[place]:
                    told = position_message(output.logprobs, i, int(token_ids[place]), num_top)
                    self._result.logprobs.append(told)
        begun, computed, done = self._marks
        self._result.timings.forward_ns = begun.ns_until(computed)
        self._result.timings.sample_ns = computed.ns_until(done)
        return self._result

    def _tell_prompts(self, output: StepOutput) -> set[int]:
        """Tell the prompts' log-probabilities; returns the rows that have no numbers."""
        failed = set()
        for prompt in output.prompt_logprobs:
            message = prompt.message()
            if message is None:
                failed.add(prompt.run.row)
                self._result.errors.append(RowError(row=prompt.run.row, message=NO_NUMBERS))
            else:
                self._result.prompt_logprobs.append(message)
        return failed

    def _tell_failures(
        self, output: StepOutput, is_told: NDArray[np.bool_], failed: set[int]
    ) -> None:
        for place in np.flatnonzero(~is_told).tolist():
            row = int(self._sampled.rows[place])
            if row not in failed:
                is_cut = output.largest is not None and output.largest[place].isneginf()
                message = NO_TOKEN_LEFT if is_cut else NO_NUMBERS
                self._result.errors.append(RowError(row=row, message=message))
