"""Share of the allocated KV slots that hold no token: ours, beside allocators of whole sequences.

    python -m benchmarks.bench_kv_waste [--num-requests 1000 --seed 0 --output-json FILE]

Lengths are drawn as ShareGPT's are distributed: log-normal, mean 202 tokens in and 179 out. All run
through the real scheduler, whose blocks are counted in every step; a stub answers its plans.
The three allocators are those that the PagedAttention paper (Kwon et al., 2023, section 3.1, figure
2) simulates in Orca: each reserves contiguous slots for a whole sequence when it starts. `max`
reserves the longest sequence of the model, `pow2` the prompt and the output rounded up to a power
of two, `oracle` exactly what the sequence will need. A slot counts as used from the step that fills
it, so even `oracle` holds slots that are still empty. All are charged for the same steps of the
same sequences, whether or not their memory could hold them: waste is compared, not throughput.
"""

import json
import math
import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path

import cyclopts

from octavo.scheduler.config import GroupConfig, SchedulerConfig
from octavo.scheduler.scheduler import Scheduler
from octavo.v1 import scheduling_pb2, step_pb2

MEAN_INPUT, MEAN_OUTPUT = 202, 179
# Of the logarithm: half of ShareGPT's prompts are shorter than a third of the mean.
_SIGMA_INPUT, _SIGMA_OUTPUT = 1.5, 1.0
_VOCAB_SIZE = 32_000


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens of one request."""

    prompt: int
    output: int

    @property
    def total(self) -> int:
        return self.prompt + self.output


@dataclass(slots=True)
class Slots:
    """KV slots, summed over steps."""

    allocated: int = 0
    used: int = 0

    @property
    def waste(self) -> float:
        return 1 - self.used / self.allocated


@dataclass(slots=True)
class Waste:
    """What one run of the scheduler brings."""

    num_steps: int = 0
    paged: Slots = field(default_factory=Slots)
    oracle: Slots = field(default_factory=Slots)
    pow2: Slots = field(default_factory=Slots)
    max: Slots = field(default_factory=Slots)

    def add(self, rows: "Rows", num_paged_slots: int, max_model_len: int) -> None:
        """Count a step: what each allocator holds, and what the step will have filled."""
        self.num_steps += 1
        self.paged.allocated += num_paged_slots
        for lengths, used in rows.running.values():
            rounded = 1 << (lengths.output - 1).bit_length()
            self.oracle.allocated += lengths.total
            self.pow2.allocated += min(lengths.prompt + rounded, max_model_len)
            self.max.allocated += max_model_len
            for slots in (self.paged, self.oracle, self.pow2, self.max):
                slots.used += used


class Rows:
    """What a worker knows of its rows: their requests, and how many tokens they have computed."""

    def __init__(self, by_key: Mapping[bytes, Lengths]) -> None:
        self.running: dict[int, tuple[Lengths, int]] = {}
        self._by_key = by_key

    def apply(self, plan: step_pb2.StepPlan) -> None:
        for row in plan.freed_rows:
            del self.running[row]
        for added in plan.added_rows:
            self.running[added.row] = self._by_key[added.request_key], added.num_computed_tokens
        for row, num_new_tokens in zip(plan.row, plan.num_new_tokens, strict=True):
            lengths, used = self.running[row]
            self.running[row] = lengths, used + num_new_tokens


def draw_lengths(num_requests: int, max_model_len: int, rng: random.Random) -> list[Lengths]:
    """Return log-normal lengths, redrawn where prompt and output exceed the context."""
    drawn: list[Lengths] = []
    while len(drawn) < num_requests:
        lengths = Lengths(
            _log_normal(MEAN_INPUT, _SIGMA_INPUT, rng), _log_normal(MEAN_OUTPUT, _SIGMA_OUTPUT, rng)
        )
        if lengths.total <= max_model_len:
            drawn.append(lengths)
    return drawn


def _log_normal(mean: float, sigma: float, rng: random.Random) -> int:
    return max(1, round(rng.lognormvariate(math.log(mean) - sigma**2 / 2, sigma)))


def measure(
    lengths: list[Lengths], *, block_size: int, max_model_len: int, max_num_seqs: int
) -> Waste:
    """Run requests of these lengths to their end, and count slots in every step."""
    scheduler = Scheduler(
        SchedulerConfig(
            epoch=1,
            block_size=block_size,
            kv_groups=(GroupConfig(num_blocks=max_num_seqs * -(-max_model_len // block_size)),),
            max_model_len=max_model_len,
            max_num_seqs=max_num_seqs,
            max_num_batched_tokens=2048,
            vocab_size=_VOCAB_SIZE,
            max_num_queued_requests=len(lengths),
            max_num_queued_tokens=sum(each.prompt for each in lengths),
        )
    )
    by_key = {index.to_bytes(16, "little"): each for index, each in enumerate(lengths)}
    rng, clock = random.Random(0), count(1)
    for key, each in by_key.items():
        scheduler.submit(_request(key, each, rng), next(clock))
    waste, rows = Waste(), Rows(by_key)
    while not scheduler.is_idle:
        plan = scheduler.schedule(next(clock))
        assert plan is not None
        rows.apply(plan)
        load = scheduler.load()
        waste.add(rows, (load.num_blocks - load.num_free_blocks) * block_size, max_model_len)
        scheduler.update(_answer(plan), next(clock))
        scheduler.take_outputs()
    return waste


def _request(key: bytes, lengths: Lengths, rng: random.Random) -> scheduling_pb2.SubmitRequest:
    return scheduling_pb2.SubmitRequest(
        request_key=key,
        router_id=bytes(16),
        prompt_token_ids=[rng.randrange(_VOCAB_SIZE) for _ in range(lengths.prompt)],
        n=1,
        seeds=[0],
        max_tokens=lengths.output,
    )


def _answer(plan: step_pb2.StepPlan) -> step_pb2.StepResult:
    return step_pb2.StepResult(
        epoch=plan.epoch,
        step_id=plan.step_id,
        token_ids=[1] * sum(plan.needs_sample),
    )


def main(
    *,
    num_requests: int = 1000,
    block_size: int = 16,
    max_model_len: int = 2048,
    max_num_seqs: int = 64,
    seed: int = 0,
    output_json: Path | None = None,
) -> None:
    """Print the share of allocated KV slots that hold no token, by allocator.

    Args:
        num_requests: requests, all there from the start.
        block_size: tokens in a block.
        max_model_len: most tokens of prompt and output together.
        max_num_seqs: most sequences that run at once.
        seed: of the lengths.
        output_json: file for the result.
    """
    lengths = draw_lengths(num_requests, max_model_len, random.Random(seed))
    waste = measure(
        lengths, block_size=block_size, max_model_len=max_model_len, max_num_seqs=max_num_seqs
    )
    shares = {
        "octavo": waste.paged.waste,
        "orca_oracle": waste.oracle.waste,
        "orca_pow2": waste.pow2.waste,
        "orca_max": waste.max.waste,
    }
    for name, share in shares.items():
        print(f"{name:12} {share:6.1%} of the allocated slots are empty")
    if output_json is not None:
        result = {
            "num_requests": num_requests,
            "block_size": block_size,
            "max_model_len": max_model_len,
            "max_num_seqs": max_num_seqs,
            "seed": seed,
            "mean_input": sum(each.prompt for each in lengths) / num_requests,
            "mean_output": sum(each.output for each in lengths) / num_requests,
            "waste": shares,
            "slots": asdict(waste),
        }
        output_json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    cyclopts.run(main)
