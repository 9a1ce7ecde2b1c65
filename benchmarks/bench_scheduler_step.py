"""Times a step of the scheduler, without sockets: schedule, encode, update, outputs.

    python -m benchmarks.bench_scheduler_step [--num-running 64 256 1024 4096] [--output-json FILE]

Decoding sequences only, as in the steady state; plans go through the wire format both ways, results
come from a stub that answers whatever the plan asks. `update` includes parsing the result and
building what the routers get. Times are the thread's own, so that another process takes none of it;
what was made at the start is out of the garbage collector's sight, as in the scheduler's process.
"""

import gc
import random
import statistics
import time
from dataclasses import dataclass

from octavo.block_hash import extend_chain, root_hash
from octavo.scheduler.config import GroupConfig, SchedulerConfig
from octavo.scheduler.scheduler import Scheduler
from octavo.v1 import scheduling_pb2, step_pb2

from . import by_num_running

PROMPT_TOKENS = 64
BLOCK_SIZE = 16
NUM_STEPS = 320
WARM_UP_STEPS = 32
VOCAB_SIZE = 49_152


@dataclass(frozen=True)
class StepCost:
    """Medians over the steps, in microseconds; `p99_us` is of the whole step."""

    num_running: int
    schedule_us: float
    encode_us: float
    update_us: float
    outputs_us: float
    total_us: float
    p99_us: float
    plan_bytes: int


def filled_scheduler(num_running: int, rng: random.Random) -> Scheduler:
    """Return a scheduler whose sequences all run, at uneven places in their blocks."""
    num_tokens = PROMPT_TOKENS + BLOCK_SIZE + WARM_UP_STEPS + NUM_STEPS + 2
    config = SchedulerConfig(
        epoch=1,
        block_size=BLOCK_SIZE,
        kv_groups=(GroupConfig(num_blocks=2 * num_running * (num_tokens // BLOCK_SIZE + 1)),),
        max_model_len=4096,
        max_num_seqs=num_running,
        max_num_batched_tokens=max(2048, 2 * num_running),
        model_hash=bytes(16),
        vocab_size=VOCAB_SIZE,
        max_num_queued_requests=num_running,
    )
    scheduler = Scheduler(config)
    root = root_hash(config.model_hash, "")
    for index in range(num_running):
        length = PROMPT_TOKENS + rng.randrange(BLOCK_SIZE)
        prompt = [rng.randrange(VOCAB_SIZE) for _ in range(length)]
        request = scheduling_pb2.SubmitRequest(
            request_key=index.to_bytes(16, "little"),
            router_id=b"r" * 16,
            prompt_token_ids=prompt,
            block_hashes=b"".join(extend_chain(root, prompt, BLOCK_SIZE)),
            n=1,
            seeds=[index],
            max_tokens=4096,
            stop_token_ids=[VOCAB_SIZE - 1],
        )
        scheduler.submit(request, 0)
    while scheduler.num_waiting:
        run_step(scheduler, rng)
    return scheduler


def answer(plan: step_pb2.StepPlan, rng: random.Random) -> bytes:
    """Return the result that the plan asks for, serialized."""
    return step_pb2.StepResult(
        epoch=plan.epoch,
        step_id=plan.step_id,
        token_ids=[rng.randrange(VOCAB_SIZE - 1) for _ in range(sum(plan.needs_sample))],
    ).SerializeToString()


def run_step(scheduler: Scheduler, rng: random.Random) -> step_pb2.StepPlan:
    plan = scheduler.schedule(0)
    assert plan is not None
    scheduler.update(step_pb2.StepResult.FromString(answer(plan, rng)), 0)
    scheduler.take_outputs()
    return plan


def measure(num_running: int) -> StepCost:
    """Return the cost of a step with `num_running` decoding sequences."""
    rng = random.Random(num_running)
    scheduler = filled_scheduler(num_running, rng)
    for _ in range(WARM_UP_STEPS):
        run_step(scheduler, rng)
    gc.freeze()
    parts, sizes = [], []
    for _ in range(NUM_STEPS):
        times = [time.thread_time()]
        plan = scheduler.schedule(0)
        times.append(time.thread_time())
        assert plan is not None and len(plan.row) == num_running
        encoded = plan.SerializeToString()
        times.append(time.thread_time())
        received = answer(plan, rng)
        started = time.thread_time()
        scheduler.update(step_pb2.StepResult.FromString(received), 0)
        updated = time.thread_time()
        for outputs in scheduler.take_outputs().values():
            outputs.SerializeToString()
        told = time.thread_time()
        parts.append((times[1] - times[0], times[2] - times[1], updated - started, told - updated))
        sizes.append(len(encoded))
    totals = sorted(sum(part) * 1e6 for part in parts)
    medians = [statistics.median(column) * 1e6 for column in zip(*parts, strict=True)]
    schedule, encode, update, outputs = (round(median, 1) for median in medians)
    return StepCost(
        num_running,
        schedule,
        encode,
        update,
        outputs,
        total_us=round(statistics.median(totals), 1),
        p99_us=round(totals[int(0.99 * len(totals))], 1),
        plan_bytes=int(statistics.median(sizes)),
    )


def main() -> None:
    headings = ("running", "schedule", "encode", "update", "outputs", "total µs", "p99 µs", "bytes")
    by_num_running.run("scheduler_step", __doc__, headings, measure, (64, 256, 1024, 4096))


if __name__ == "__main__":
    main()
