"""What the routers are told: tokens and ends, one message for each router and step."""

from collections import Counter
from dataclasses import dataclass, field

from octavo.v1 import common_pb2, scheduling_pb2

from .request import Request, TokenEntry


@dataclass(slots=True)
class _RouterOutputs:
    new_tokens: list[TokenEntry] = field(default_factory=list)
    logprobs: list[common_pb2.PositionLogprobs] = field(default_factory=list)
    """Of those of new_tokens whose requests want them."""
    prompt_logprobs: list[scheduling_pb2.PromptPart] = field(default_factory=list)
    finished: list[scheduling_pb2.OutputFinished] = field(default_factory=list)


class Outputs:
    """Collects, by router, what has happened since the last `take`."""

    def __init__(self) -> None:
        self._routers: dict[bytes, _RouterOutputs] = {}

    def new_tokens(self, router_id: bytes) -> list[TokenEntry]:
        """Return the list that the router's new tokens are appended to."""
        return self._of(router_id).new_tokens

    def add_finished(self, router_id: bytes, finished: scheduling_pb2.OutputFinished) -> None:
        self._of(router_id).finished.append(finished)

    def add_logprobs(self, router_id: bytes, logprobs: common_pb2.PositionLogprobs) -> None:
        """Add those of the token that was appended last."""
        self._of(router_id).logprobs.append(logprobs)

    def add_prompt_logprobs(self, router_id: bytes, part: scheduling_pb2.PromptPart) -> None:
        self._of(router_id).prompt_logprobs.append(part)

    def drop(self, router_id: bytes) -> None:
        """Forget a router that has no requests, and whatever it was to be told."""
        self._routers.pop(router_id, None)

    def take(self) -> dict[bytes, scheduling_pb2.StepOutputs]:
        """Return the news by router, and begin anew."""
        taken = {}
        for router_id, outputs in self._routers.items():
            if outputs.new_tokens or outputs.finished or outputs.prompt_logprobs:
                taken[router_id] = _step_outputs(outputs)
                outputs.new_tokens.clear()
                outputs.finished.clear()
                outputs.logprobs.clear()
                outputs.prompt_logprobs.clear()
        return taken

    def _of(self, router_id: bytes) -> _RouterOutputs:
        return self._routers.setdefault(router_id, _RouterOutputs())


def _step_outputs(outputs: _RouterOutputs) -> scheduling_pb2.StepOutputs:
    message = scheduling_pb2.StepOutputs(
        finished=outputs.finished,
        logprobs=outputs.logprobs,
        prompt_logprobs=outputs.prompt_logprobs,
    )
    if outputs.new_tokens:
        keys, indices, positions, token_ids = zip(*outputs.new_tokens, strict=True)
        message.request_key.extend(keys)
        message.output_index.extend(indices)
        message.first_position.extend(positions)
        message.num_tokens.extend([1] * len(keys))
        message.token_ids.extend(token_ids)
    return message


def usage_of(request: Request, now_ns: int) -> common_pb2.Usage:
    """Return what a request used; its last output has just ended."""
    since = request.submitted_ns
    started_ns = now_ns if request.started_ns is None else request.started_ns
    first_token_ns = since if request.first_token_ns is None else request.first_token_ns
    return common_pb2.Usage(
        num_prompt_tokens=request.num_prompt_tokens,
        num_cached_tokens=request.num_cached_tokens,
        num_computed_tokens=request.num_computed_tokens,
        num_output_tokens=request.num_output_tokens,
        num_discarded_tokens=request.num_discarded_tokens,
        num_preemptions=request.num_preemptions,
        num_resumptions=request.num_resumptions,
        queue_ns=started_ns - since,
        first_token_ns=first_token_ns - since,
        total_ns=now_ns - since,
    )


@dataclass(slots=True)
class SchedulerStats:
    """Counters since the start; only the scheduler's decisions write them."""

    num_requests: int = 0
    num_steps: int = 0
    num_prompt_tokens: int = 0
    """Of requests when they are first started."""
    num_cached_tokens: int = 0
    """Of these, found in the prefix cache."""
    num_computed_tokens: int = 0
    """Planned to be run through the model."""
    num_generated_tokens: int = 0
    """Sampled and delivered."""
    num_discarded_tokens: int = 0
    """Sampled and thrown away: their output had ended meanwhile, or was rolled back."""
    num_preemptions: int = 0
    num_stale_results: int = 0
    """Results of another epoch, and such as were applied already or never asked for."""
    num_worker_losses: int = 0
    num_finished: Counter[int] = field(default_factory=Counter)
    """Outputs, by FinishReason."""
