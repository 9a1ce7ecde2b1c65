"""Times a step of the scheduler, without sockets: schedule, encode, update, outputs.

    python -m benchmarks.bench_scheduler_step [--num-running 64 256 1024 4096] [--output-json FILE]

Decoding sequences only, as in the steady state; plans go through the wire format both ways, results
come from a stub that answers whatever the plan asks. `update` includes parsing the result;
`outputs` is what the routers get, made and encoded; `joining` is a whole step in which one request
has left and another joined, with its prompt. Times are the thread's own, so that another process
takes none of it; what was made at the start is out of the garbage collector's sight, as in the
scheduler's process.
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
NUM_JOINING = 64
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
    joining_us: float
    plan_bytes: int


@dataclass(frozen=True)
class TimedStep:
    """Seconds of the parts: schedule, encode, update, outputs; and the plan's size."""

    parts_s: tuple[float, float, float, float]
    num_rows: int
    plan_bytes: int


def filled_scheduler(num_running: int, rng: random.Random) -> Scheduler:
    """Return a scheduler whose sequences all run, at uneven places in their blocks."""
    num_tokens = PROMPT_TOKENS + BLOCK_SIZE + WARM_UP_STEPS + NUM_STEPS + NUM_JOINING + 2
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
    for index in range(num_running):
        submit(scheduler, index, rng)
    while scheduler.num_waiting:
        run_step(scheduler, rng)
    return scheduler


def submit(scheduler: Scheduler, index: int, rng: random.Random) -> None:
    """Submit the request of this index, with a prompt of its own."""
    length = PROMPT_TOKENS + rng.randrange(BLOCK_SIZE)
    prompt = [rng.randrange(VOCAB_SIZE) for _ in range(length)]
    root = root_hash(bytes(16), "")
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


def time_step(scheduler: Scheduler, rng: random.Random) -> TimedStep:
    started = time.thread_time()
    plan = scheduler.schedule(0)
    scheduled = time.thread_time()
    assert plan is not None
    plan_bytes = len(plan.SerializeToString())
    encoded = time.thread_time()
    received = answer(plan, rng)
    answered = time.thread_time()
    scheduler.update(step_pb2.StepResult.FromString(received), 0)
    updated = time.thread_time()
    for outputs in scheduler.take_outputs().values():
        outputs.SerializeToString()
    told = time.thread_time()
    parts_s = (scheduled - started, encoded - scheduled, updated - answered, told - updated)
    return TimedStep(parts_s, len(plan.row), plan_bytes)


def measure(num_running: int) -> StepCost:
    """Return the cost of a step with `num_running` decoding sequences."""
    rng = random.Random(num_running)
    scheduler = filled_scheduler(num_running, rng)
    for _ in range(WARM_UP_STEPS):
        run_step(scheduler, rng)
    gc.freeze()
    steps = [time_step(scheduler, rng) for _ in range(NUM_STEPS)]
    assert all(step.num_rows == num_running for step in steps)
    joining_us = []
    for index in range(NUM_JOINING):
        scheduler.abort(scheduling_pb2.Abort(request_key=index.to_bytes(16, "little")), 0)
        submit(scheduler, num_running + index, rng)
        joining_us.append(sum(time_step(scheduler, rng).parts_s) * 1e6)
    totals_us = sorted(sum(step.parts_s) * 1e6 for step in steps)
    columns = zip(*(step.parts_s for step in steps), strict=True)
    schedule, encode, update, outputs = (statistics.median(each) * 1e6 for each in columns)
    return StepCost(
        num_running,
        round(schedule, 1),
        round(encode, 1),
        round(update, 1),
        round(outputs, 1),
        total_us=round(statistics.median(totals_us), 1),
        p99_us=round(totals_us[int(0.99 * len(totals_us))], 1),
        joining_us=round(statistics.median(joining_us), 1),
        plan_bytes=int(statistics.median(step.plan_bytes for step in steps)),
    )


def main() -> None:
    parts = ("schedule", "encode", "update", "outputs")
    headings = ("running", *parts, "total µs", "p99 µs", "joining", "bytes")
    by_num_running.run("scheduler_step", __doc__, headings, measure, (64, 256, 1024, 4096))


if __name__ == "__main__":
    main()
