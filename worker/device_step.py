"""A step that is on its way through a device: what there will be to tell of it, and when."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from octavo.kernels.logprobs import Logprobs
from octavo.v1.step_pb2 import RowError, StepResult

from .device_logprobs import PromptLogprobs, position_message
from .device_stream import DeviceStream, Fetch, Mark
from .sampler import NO_NUMBERS, NO_TOKEN_LEFT


@dataclass(frozen=True, kw_only=True, slots=True)
class SampledOutput:
    """What a step computes of some of its sampled rows; tensors on the device, or on the host.

    Attributes:
        rows: [num_some].
        token_ids: int64 [num_some]; below 0 where none could be drawn.
        largest: float32 [num_some], the largest logit after the rules; None where no row has any.
        logprobs: of the tokens of those rows that want them; None if none do.
        wanting: which of `rows` these are.
        num_top: for each of them, how many of the best are told beside the token's own.
    """

    rows: NDArray[np.intp]
    token_ids: Tensor
    largest: Tensor | None
    logprobs: Logprobs | None
    wanting: NDArray[np.intp]
    num_top: NDArray[np.int32]

    @property
    def tensors(self) -> Iterator[Tensor]:
        yield self.token_ids
        if self.largest is not None:
            yield self.largest
        if self.logprobs is not None:
            yield from self.logprobs

    def with_tensors(self, tensors: Iterator[Tensor]) -> "SampledOutput":
        """Return the same with other tensors, in the order of `tensors`."""
        return replace(
            self,
            token_ids=next(tensors),
            largest=None if self.largest is None else next(tensors),
            logprobs=None if self.logprobs is None else _next_logprobs(tensors),
        )

    def why_none(self, place: int) -> str:
        """Say why a row got no token."""
        is_cut = self.largest is not None and self.largest[place].isneginf()
        return NO_TOKEN_LEFT if is_cut else NO_NUMBERS


@dataclass(frozen=True, slots=True)
class StepOutput:
    """What a step computes for the host.

    Attributes:
        sampled: of the sampled rows, in their order, but those that failed.
        prompt_logprobs: of the prompts' tokens that want them.
        failures: rows of which nothing is told, and why.
    """

    sampled: Sequence[SampledOutput]
    prompt_logprobs: Sequence[PromptLogprobs]
    failures: Mapping[int, str]

    @property
    def tensors(self) -> Iterator[Tensor]:
        for part in self.sampled:
            yield from part.tensors
        for prompt in self.prompt_logprobs:
            for told in prompt.slices:
                yield from told

    def with_tensors(self, tensors: Iterator[Tensor]) -> "StepOutput":
        """Return the same with other tensors, in the order of `tensors`."""
        return StepOutput(
            [part.with_tensors(tensors) for part in self.sampled],
            [
                replace(prompt, slices=[_next_logprobs(tensors) for _ in prompt.slices])
                for prompt in self.prompt_logprobs
            ],
            self.failures,
        )


class DeviceStep:
    """A PendingStep: everything of it is launched, and its numbers come as soon as they are."""

    def __init__(
        self,
        result: StepResult,
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
        self._output = output
        self._marks = marks
        self._fetch: Fetch = stream.fetch(list(output.tensors))

    def result(self) -> StepResult:
        """Wait for the device, and tell what the step brought."""
        output = self._output.with_tensors(iter(self._fetch.wait()))
        failures = dict(output.failures)
        self._tell_prompts(output, failures)
        for part in output.sampled:
            self._tell_sampled(part, failures)
        self._result.errors.extend(
            RowError(row=row, message=message) for row, message in failures.items()
        )
        begun, computed, done = self._marks
        self._result.timings.forward_ns = begun.ns_until(computed)
        self._result.timings.sample_ns = computed.ns_until(done)
        return self._result

    def _tell_prompts(self, output: StepOutput, failures: dict[int, str]) -> None:
        """Tell the prompts' log-probabilities; notes the rows that have no numbers."""
        for prompt in output.prompt_logprobs:
            message = prompt.message()
            if message is None:
                failures[prompt.run.row] = NO_NUMBERS
            else:
                self._result.prompt_logprobs.append(message)

    def _tell_sampled(self, part: SampledOutput, failures: dict[int, str]) -> None:
        """Tell tokens, and their log-probabilities; notes the rows that got none."""
        token_ids = part.token_ids.numpy()
        for place in np.flatnonzero(token_ids < 0).tolist():
            failures.setdefault(int(part.rows[place]), part.why_none(place))
        is_told = token_ids >= 0
        if failures:
            is_told &= ~np.isin(part.rows, list(failures))
        self._result.token_ids.extend(token_ids[is_told].tolist())
        if part.logprobs is None:
            return
        columns = (part.wanting.tolist(), part.num_top.tolist())
        for i, (place, num_top) in enumerate(zip(*columns, strict=True)):
            if is_told[place]:
                told = position_message(part.logprobs, i, int(token_ids[place]), num_top)
                self._result.logprobs.append(told)


def _next_logprobs(tensors: Iterator[Tensor]) -> Logprobs:
    return Logprobs._make(islice(tensors, len(Logprobs._fields)))
