"""A scheduler and a model in one process, token ids in and out: what exactness is tested on."""

from collections import defaultdict
from collections.abc import Sequence
from itertools import count

from octavo.scheduler.config import GroupConfig, SchedulerConfig
from octavo.scheduler.scheduler import Scheduler
from octavo.v1 import scheduling_pb2
from octavo.v1.common_pb2 import PositionLogprobs
from octavo.worker.pending_step import PendingStep
from octavo.worker.step_loop import StepRunner

_ROUTER_ID = b"offline"


class OfflineEngine:
    """Runs requests to their end, one step after another.

    `epoch` grows from one engine of a runner to the next, as from one scheduler to the next.
    `plans_ahead` is how many plans are made before the result of the oldest is told: 1, or 2 as
    when scheduler and worker overlap.

    Attributes:
        logprobs: of each output's tokens, by request key and output index.
        prompt_logprobs: of each prompt's tokens from its second on, by request key.
    """

    def __init__(
        self,
        runner: StepRunner,
        *,
        epoch: int = 1,
        max_num_batched_tokens: int | None = None,
        enable_prefix_caching: bool = True,
        plans_ahead: int = 1,
    ) -> None:
        ready = runner.describe()
        self.scheduler = Scheduler(
            SchedulerConfig(
                epoch=epoch,
                block_size=ready.block_size,
                kv_groups=tuple(GroupConfig(num_blocks=g.num_blocks) for g in ready.kv_groups),
                max_model_len=ready.max_model_len,
                max_num_seqs=ready.num_rows,
                max_num_batched_tokens=max_num_batched_tokens or ready.max_num_batched_tokens,
                model_hash=ready.model_hash,
                vocab_size=ready.vocab_size,
                enable_prefix_caching=enable_prefix_caching,
            )
        )
        self._runner = runner
        self._plans_ahead = plans_ahead
        self._clock = count(1)
        self.logprobs: dict[tuple[bytes, int], list[PositionLogprobs]] = defaultdict(list)
        self.prompt_logprobs: dict[bytes, list[PositionLogprobs]] = defaultdict(list)

    def generate(
        self, requests: Sequence[scheduling_pb2.SubmitRequest]
    ) -> dict[tuple[bytes, int], list[int]]:
        """Return the tokens of each output, by request key and output index."""
        for request in requests:
            request.router_id = _ROUTER_ID
            self.scheduler.submit(request, next(self._clock))
        wanting = {r.request_key for r in requests if r.HasField("num_logprobs")}
        tokens: dict[tuple[bytes, int], list[int]] = defaultdict(list)
        steps: list[PendingStep] = []
        while not self.scheduler.is_idle:
            plan = self.scheduler.schedule(next(self._clock))
            if plan is not None:
                steps.append(self._runner.start(plan))
            if steps and (plan is None or len(steps) == self._plans_ahead):
                self.scheduler.update(steps.pop(0).result(), next(self._clock))
            for outputs in self.scheduler.take_outputs().values():
                _collect(outputs, tokens)
                self._collect_logprobs(outputs, wanting)
        return tokens

    def _collect_logprobs(self, outputs: scheduling_pb2.StepOutputs, wanting: set[bytes]) -> None:
        entries = zip(outputs.request_key, outputs.output_index, strict=True)
        entries_with = [entry for entry in entries if entry[0] in wanting]
        for entry, logprobs in zip(entries_with, outputs.logprobs, strict=True):
            self.logprobs[entry].append(logprobs)
        for part in outputs.prompt_logprobs:
            told = self.prompt_logprobs[part.request_key]
            assert part.first_position == len(told) + 1
            told.extend(part.positions)


def _collect(
    outputs: scheduling_pb2.StepOutputs, tokens: dict[tuple[bytes, int], list[int]]
) -> None:
    flat = iter(outputs.token_ids)
    columns = zip(outputs.request_key, outputs.output_index, outputs.num_tokens, strict=True)
    for request_key, output_index, num_tokens in columns:
        tokens[request_key, output_index] += [next(flat) for _ in range(num_tokens)]
