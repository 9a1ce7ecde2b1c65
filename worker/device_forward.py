"""Queues forward passes on a device: by recorded graphs, or launch by launch.

A step that decodes is one graph; one that computes prompts as well has one for each piece between
two attentions, if it is short. A step whose activations find no memory is computed in parts, one
after the other, and brings the same numbers.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import NamedTuple

import numpy as np
import structlog
import torch
from numpy.typing import NDArray
from torch import Tensor

from octavo.kernels.device_layers import DeviceLayers
from octavo.kernels.workspace import Workspace

from .cuda_graphs import DecodeGraphs, Graph, GraphRecorder, filled_up, graph_sizes
from .device_batch import DeviceBatch
from .device_stream import DeviceStream
from .logprobs import PromptRun
from .models.decoder import Decoder
from .piecewise_graphs import PiecewiseGraphs, piece_sizes, with_tokens
from .plan_columns import PlanColumns
from .step_parts import halves, run_in_parts, try_twice


class Way(Enum):
    """What runs a step."""

    LAUNCHES = 1
    GRAPH = 2
    PIECES = 3


@dataclass(frozen=True, slots=True)
class FittedStep:
    """A step as it is to be run.

    Attributes:
        columns: of the plan.
        wanted: int64 [num_wanted]; the tokens of the step whose hidden states are wanted: those
            after which one is sampled, then those of prompts.
        way: what runs it.
        sent: the columns as the device gets them: filled up to the size of the graph.
    """

    columns: PlanColumns
    wanted: NDArray[np.int64]
    way: Way
    sent: PlanColumns


class ForwardOutput(NamedTuple):
    """What a forward pass computes.

    Attributes:
        hidden: [num_wanted, hidden_size], of the tokens that are wanted.
        num_computed: how many rows still have to be told how far they are computed.
        logits: float32 [num_wanted, vocab_size], from which tokens have been drawn as they are; in
            memory that the next step uses again. None: nobody has computed them.
    """

    hidden: Tensor
    num_computed: int
    logits: Tensor | None = None


class DeviceForward:
    """The forward passes of one runner."""

    def __init__(
        self,
        decoder: Decoder,
        batch: DeviceBatch,
        stream: DeviceStream,
        draw: Callable[[Tensor], None],
        recorder: GraphRecorder | None = None,
    ) -> None:
        """Be ready to run; with a `recorder` the largest graph of decode steps is recorded at once.

        Args:
            draw: draws a token from each row of logits, in the order of the step's sampled rows,
                and keeps it. Graphs have it at their end: most steps need no more.
        """
        self._decoder = decoder
        self._batch = batch
        self._stream = stream
        self._draw = draw
        self._recorder = recorder
        # Of all graphs, the largest of which is recorded first: the others find it large enough.
        self._workspace = Workspace(batch.device)
        # Where each size of graphs puts them.
        self._logits: dict[int, Tensor] = {}
        self._graphs: DecodeGraphs | None = None
        self._pieces: PiecewiseGraphs | None = None
        if recorder is not None:
            self._begin_graphs(recorder)

    @torch.inference_mode()
    def _begin_graphs(self, recorder: GraphRecorder) -> None:
        """Have graphs, or do without them where there is no memory for the first."""
        try:
            self._graphs = DecodeGraphs(self._decode_sizes, self, self._queue_decode)
        except torch.OutOfMemoryError:
            structlog.get_logger().warning(
                "no memory for CUDA graphs: each operation is launched by itself, and the device"
                " waits for that where few tokens are computed. Lower --gpu-memory-utilization:"
                " what the KV cache does not take is left for graphs."
            )
        else:
            self._pieces = self._piecewise_graphs(recorder)

    def prepare(self) -> bool:
        """Record a graph that is missing, of decode steps first; return whether others are."""
        if self._graphs is None or self._pieces is None:
            return False
        return self._graphs.capture_next() or self._pieces.capture_next()

    def fit(self, columns: PlanColumns, runs: Sequence[PromptRun]) -> FittedStep:
        """Say how a step is to be run; once for each, before its columns are on the device."""
        last = np.cumsum(columns.num_new_tokens)[columns.needs_sample] - 1
        wanted = np.concatenate([last, *(run.indices for run in runs)])
        if self._graphs is not None and columns.is_decode:
            size = self._graphs.size_for(len(columns.row))
            if size is not None:
                return FittedStep(columns, wanted, Way.GRAPH, filled_up(columns, size))
        elif self._pieces is not None:
            size = self._pieces.size_for(int(columns.num_new_tokens.sum()))
            if size is not None:
                return FittedStep(columns, wanted, Way.PIECES, with_tokens(columns, size))
        return FittedStep(columns, wanted, Way.LAUNCHES, columns)

    def run(self, step: FittedStep) -> ForwardOutput:
        """Queue a step whose columns are on the device.

        Raises torch.OutOfMemoryError if there is none for a single token; some of the rows may have
        been told then how far they are computed.
        """
        num_rows = len(step.columns.row)
        if step.way is Way.GRAPH and self._graphs is not None:
            hidden = self._graphs.replay(len(step.sent.row))
            logits = self._logits[len(step.sent.row)]
            return ForwardOutput(hidden[:num_rows], num_rows, logits[:num_rows])
        if not num_rows:
            config, dtype = self._decoder.config, self._decoder.dtype
            return ForwardOutput(self._batch.no_states(config.hidden_size, dtype), 0)
        return ForwardOutput(*self._hidden_states(step))

    def record(self, work: Callable[[], Tensor]) -> Graph:
        """Record a graph while no row has work."""
        assert self._recorder is not None
        self._batch.send_no_rows(self._stream)
        return self._recorder.record(work)

    def captures(self, recorder: GraphRecorder) -> Sequence[Sequence[Callable[[], object]]]:
        """Return what captures each size of both kinds of graphs, for whoever wants to know what
        they take; no step runs on them.
        """
        decodes = [partial(self._record_decode, recorder, n) for n in self._decode_sizes[::-1]]
        pieces = self._piecewise_graphs(recorder)
        return decodes, [pieces.capture_size] * pieces.num_sizes

    @property
    def _decode_sizes(self) -> list[int]:
        return graph_sizes(min(self._batch.max_num_rows, self._batch.max_num_batched_tokens))

    @torch.inference_mode()
    def _record_decode(self, recorder: GraphRecorder, num_rows: int) -> Graph:
        self._batch.send_no_rows(self._stream)
        return recorder.record(lambda: self._queue_decode(num_rows))

    def _piecewise_graphs(self, recorder: GraphRecorder) -> PiecewiseGraphs:
        layers = self._decoder.layers
        assert isinstance(layers, DeviceLayers)
        sizes = piece_sizes(self._batch.max_num_batched_tokens)
        no_tokens = partial(self._batch.no_tokens, stream=self._stream)
        return PiecewiseGraphs(sizes, layers, recorder, no_tokens)

    def _queue_decode(self, num_rows: int) -> Tensor:
        """Queue the forward pass of rows with one token each; return their hidden states."""
        ones = np.ones(num_rows, np.int64)
        columns = PlanColumns(ones.astype(np.intp), ones, ones.astype(np.bool_))
        hidden = self._decoder.hidden_states(self._batch.gather(columns))
        self._logits[num_rows] = self._decoder.logits(hidden, self._workspace)
        self._draw(self._logits[num_rows])
        return hidden

    def _hidden_states(self, step: FittedStep) -> tuple[Tensor, int]:
        """Return the wanted hidden states, and how many rows are not told yet what is computed."""
        places: list[NDArray[np.intp]] = []
        num_done = 0

        def run(part: PlanColumns) -> Tensor:
            nonlocal num_done
            is_all = part is step.columns
            end = num_done + int(part.num_new_tokens.sum())
            is_here = (num_done <= step.wanted) & (step.wanted < end)
            if is_all:
                hidden = self._run_whole(step)
            else:
                self._batch.send(part, step.wanted[is_here] - num_done, self._stream)
                hidden = self._decoder.hidden_states(self._batch.gather(part, int(is_here.sum())))
                self._batch.count_computed(len(part.row))
            places.append(np.flatnonzero(is_here))
            num_done = end
            return hidden

        parts = list(run_in_parts(run, step.columns, halves, torch.cuda.empty_cache))
        if len(parts) == 1:
            return parts[0], len(step.columns.row)
        order = np.argsort(np.concatenate(places)).astype(np.int32)

        def joined() -> Tensor:
            return torch.cat(parts).index_select(0, self._stream.upload(order))

        return try_twice(joined, torch.cuda.empty_cache), 0

    def _run_whole(self, step: FittedStep) -> Tensor:
        gathered = self._batch.gather(step.sent, len(step.wanted))
        if step.way is not Way.PIECES or self._pieces is None:
            return self._decoder.hidden_states(gathered)
        num_tokens = int(step.columns.num_new_tokens.sum())
        tokens = gathered.tokens.of_rows(len(step.columns.row))
        size = len(gathered.input_ids)
        return self._pieces.run(size, tokens, num_tokens, gathered.logits_indices)
