"""octavo.worker.plan against a worker process of the demo model: the memory that it then holds."""

import asyncio
import json
import sys
from pathlib import Path

import psutil
import pytest

from octavo.model_files import demo_model_path
from octavo.v1 import step_pb2
from octavo.v1.common_pb2 import SamplingParams
from tests.worker.plans import added, plan
from tests.worker.test_scheduler_client import ScriptedScheduler

OCTAVO = str(Path(sys.executable).with_name("octavo"))

pytestmark = pytest.mark.slow

BLOCK_SIZE = 16
MAX_NUM_SEQS = 128
MAX_NUM_BATCHED_TOKENS = 512

# What libraries take when they are first used, and what the allocator keeps, nobody plans: 23 to 38
# MB have been seen.
LATE_BYTES = 50_000_000


async def planned(*arguments: str | Path) -> dict[str, int]:
    process = await asyncio.create_subprocess_exec(
        OCTAVO, "plan", "--json", *arguments, stdout=asyncio.subprocess.PIPE
    )
    stdout, _ = await process.communicate()
    values: dict[str, int] = json.loads(stdout)
    return values


async def run(scheduler: ScriptedScheduler, step: step_pb2.StepPlan) -> None:
    await scheduler.send(step_pb2.SchedulerFrame(plan=step))
    result = (await scheduler.receive("result")).result
    assert result.step_id == step.step_id and not result.errors


async def fill(scheduler: ScriptedScheduler, num_blocks: int) -> None:
    """Write each block once, in steps of the most tokens; then sample in all rows at once."""
    steps = 0
    for first in range(0, num_blocks, MAX_NUM_BATCHED_TOKENS // BLOCK_SIZE):
        blocks = range(first, min(first + MAX_NUM_BATCHED_TOKENS // BLOCK_SIZE, num_blocks))
        num_tokens = len(blocks) * BLOCK_SIZE
        steps += 1
        step = plan(steps, [(0, num_tokens, 0)])
        step.added_rows.append(added(0, [7] * num_tokens, blocks))
        step.freed_rows.extend([0] if first else [])
        await run(scheduler, step)
    step = plan(steps + 1, [(row, 2, 1) for row in range(MAX_NUM_SEQS)])
    step.freed_rows.append(0)
    for row in range(MAX_NUM_SEQS):
        step.added_rows.append(added(row, [7, 8], [row]))
        step.added_rows[-1].sampling.CopyFrom(SamplingParams(temperature=1.0, top_p=0.9))
    await run(scheduler, step)


@pytest.mark.parametrize(
    ("dtype", "kv_cache_bytes"), [("bfloat16", 70_000_000), ("float32", 100_000_000)]
)
async def test_a_worker_with_a_full_cache_holds_what_was_planned(
    tmp_path: Path, dtype: str, kv_cache_bytes: int
) -> None:
    flags = [
        *("--dtype", dtype, "--kv-cache-memory-bytes", str(kv_cache_bytes)),
        *("--max-num-seqs", str(MAX_NUM_SEQS)),
    ]
    model = demo_model_path()
    expected = await planned(model, *flags)
    endpoint = f"ipc://{tmp_path}/workers.sock"
    scheduler = ScriptedScheduler(endpoint, timeout_s=60)
    worker = await asyncio.create_subprocess_exec(
        *(OCTAVO, "worker", "--model", str(model), "--scheduler-endpoint", endpoint, *flags)
    )
    try:
        await scheduler.welcome(epoch=1)
        await fill(scheduler, expected["num_blocks"])
        resident = psutil.Process(worker.pid).memory_info().rss
    finally:
        scheduler.close()
        if worker.returncode is None:
            worker.kill()
        await worker.wait()
    assert 0 < resident - expected["total_bytes"] < LATE_BYTES
