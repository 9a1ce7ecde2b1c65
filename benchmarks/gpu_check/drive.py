"""One engine in this process: loads a model, runs workloads, writes a line of JSON for each.

python -m benchmarks.gpu_check.drive DRIVE         (engine.py starts it, with a Drive as JSON)
"""

import inspect
import sys
import time
from typing import Any

import torch

from octavo import LLM, SamplingParams

from .child import write_row
from .device_records import idle_share
from .engine import Drive
from .probes import Ceilings
from .report import Row
from .workloads import Workload, floor_s

_MAX_NUM_SEQS = 256
_MAX_NUM_BATCHED_TOKENS = 8192
_ITEMSIZE = 2


def main() -> int:
    drive = Drive.from_json(sys.argv[1])
    missing = drive.options.keys() - inspect.signature(LLM).parameters.keys()
    if missing:
        print(f"LLM has no option {', '.join(sorted(missing))}.", file=sys.stderr)
        return 1
    options: dict[str, Any] = {
        "max_num_seqs": _MAX_NUM_SEQS,
        "max_num_batched_tokens": _MAX_NUM_BATCHED_TOKENS,
    }
    started_s = time.perf_counter()
    llm = LLM(
        model=drive.directory,
        load_format="dummy",
        dtype="bfloat16",
        enable_prefix_caching=False,
        max_model_len=max(
            sum(lengths) for workload in drive.workloads for lengths in workload.lengths
        ),
        **options | drive.options,
    )
    start_s = time.perf_counter() - started_s
    try:
        for workload in drive.workloads:
            generate(llm, workload.beginning(_MAX_NUM_SEQS), drive.model.vocab_size)
            row = measure(llm, workload, drive) | {"start_s": round(start_s, 1)}
            write_row(row)
    finally:
        llm.close()
    return 0


def measure(llm: LLM, workload: Workload, drive: Drive) -> Row:
    """Run a workload; return its speed beside what the GPU allows at most."""
    started_s = time.perf_counter()
    generate(llm, workload, drive.model.vocab_size)
    duration_s = time.perf_counter() - started_s
    least_s = floor_s(workload, drive.model, _MAX_NUM_SEQS, Ceilings(*drive.ceilings), _ITEMSIZE)
    longest = max(num_output for _, num_output in workload.lengths)
    row: Row = {
        "model": drive.model.name,
        "workload": workload.name,
        "output_tok_s": round(workload.num_output_tokens / duration_s, 1),
        "duration_s": round(duration_s, 3),
        # Of the longest output; a step that computes prompts counts as one.
        "ms_per_token": round(1e3 * duration_s / longest, 3),
        "percent_of_floor": round(100 * least_s / duration_s, 1),
    }
    if torch.cuda.is_available():
        row["peak_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 1)
        if drive.watches_device:
            idle = idle_share(lambda: generate(llm, workload, drive.model.vocab_size))
            row["gpu_idle_percent"] = round(100 * idle, 1)
    return row


def generate(llm: LLM, workload: Workload, vocab_size: int) -> None:
    """Run all requests to the end of their length; fails where an output is of another."""
    sampling = [
        SamplingParams(temperature=0.0, max_tokens=num_output, ignore_eos=True)
        for _, num_output in workload.lengths
    ]
    outputs = llm.generate(workload.prompts(vocab_size), sampling, use_tqdm=False)
    for output, (_, num_output) in zip(outputs, workload.lengths, strict=True):
        assert len(output.outputs[0].token_ids) == num_output, output.outputs[0].finish_reason


if __name__ == "__main__":
    sys.exit(main())
