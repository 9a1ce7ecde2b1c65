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
from .engine import Drive
from .probes import Ceilings
from .report import Row
from .step_records import RecordedLLM, step_figures
from .workloads import MAX_NUM_BATCHED_TOKENS, MAX_NUM_SEQS, Case, Workload, digest, floor_s


def main() -> int:
    drive = Drive.from_json(sys.argv[1])
    case = drive.case
    started_s = time.perf_counter()
    llm = load(case, drive.directory)
    start_s = time.perf_counter() - started_s
    try:
        for workload in case.workloads:
            generate(llm, workload.beginning(MAX_NUM_SEQS), case.model.vocab_size)
            row = measure(llm, workload, case, Ceilings(*drive.ceilings))
            write_row(row | {"start_s": round(start_s, 1)})
    finally:
        llm.close()
    return 0


def load(case: Case, directory: str) -> RecordedLLM:
    """Return the engine of a case; ends the process where it has no such option."""
    missing = case.options.keys() - inspect.signature(LLM).parameters.keys()
    if missing:
        sys.exit(f"LLM has no option {', '.join(sorted(missing))}.")
    options: dict[str, Any] = {
        "max_num_seqs": MAX_NUM_SEQS,
        "max_num_batched_tokens": MAX_NUM_BATCHED_TOKENS,
    }
    return RecordedLLM(
        model=directory,
        load_format="dummy",
        dtype="bfloat16",
        enable_prefix_caching=False,
        max_model_len=max(workload.longest for workload in case.workloads),
        **options | dict(case.options),
    )


def measure(llm: RecordedLLM, workload: Workload, case: Case, ceilings: Ceilings) -> Row:
    """Run a workload; return its speed beside what the GPU allows at most."""
    model, itemsize, records = case.model, case.itemsize, llm.runner.records
    records.clear()
    started_s = time.perf_counter()
    outputs = generate(llm, workload, model.vocab_size)
    duration_s = time.perf_counter() - started_s
    least_s = floor_s(workload, model, MAX_NUM_SEQS, ceilings, itemsize)
    ready = llm.runner.describe()
    return {
        "model": model.name,
        "workload": workload.name,
        "output_tok_s": round(workload.num_output_tokens / duration_s, 1),
        "duration_s": round(duration_s, 3),
        "percent_of_floor": round(100 * least_s / duration_s, 1),
        **step_figures(records, model, ceilings, itemsize, ready.block_size),
        **_memory_gib(ready.memory.kv_cache_bytes),
        "outputs": [digest(each) for each in outputs],
    }


def generate(llm: LLM, workload: Workload, vocab_size: int) -> list[list[int]]:
    """Run all requests to the end of their length; fails where an output is of another."""
    sampling = [
        SamplingParams(temperature=0.0, max_tokens=num_output, ignore_eos=True)
        for _, num_output in workload.lengths
    ]
    outputs = llm.generate(workload.prompts(vocab_size), sampling, use_tqdm=False)
    for output, (_, num_output) in zip(outputs, workload.lengths, strict=True):
        assert len(output.outputs[0].token_ids) == num_output, output.outputs[0].finish_reason
    return [list(output.outputs[0].token_ids) for output in outputs]


def _memory_gib(kv_cache_bytes: int) -> Row:
    """Return the most that was taken of a GPU so far, and the KV cache's part of it."""
    if not torch.cuda.is_available():
        return {}
    peak_bytes = torch.cuda.max_memory_reserved()
    return {
        "peak_gib": round(peak_bytes / 2**30, 1),
        "kv_cache_gib": round(kv_cache_bytes / 2**30, 1),
    }


if __name__ == "__main__":
    sys.exit(main())
