"""One workload through transformers' continuous batching, in this process: the peer of a run.

    python -m benchmarks.gpu_check.peer DRIVE         (engine.py starts it, with a Drive as JSON)

Of a workload whose outputs have one length: `generate_batch` has one limit for all.
"""

import sys
import time

import torch
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

from .child import write_row
from .engine import Drive
from .workloads import Workload


def main() -> int:
    drive = Drive.from_json(sys.argv[1])
    device = "cuda" if torch.cuda.is_available() else "cpu"
    config = AutoConfig.from_pretrained(drive.directory)
    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval()

    def generate(workload: Workload) -> None:
        (num_output,) = {num_output for _, num_output in workload.lengths}
        # No token is -1: outputs end at their length.
        until = GenerationConfig(max_new_tokens=num_output, do_sample=False, eos_token_id=-1)
        prompts = workload.prompts(drive.case.model.vocab_size)
        outputs = model.generate_batch(inputs=prompts, generation_config=until)
        lengths = [len(output.generated_tokens) for output in outputs.values()]
        assert lengths == [num_output] * len(prompts), lengths

    for workload in drive.case.workloads:
        generate(workload.beginning(len(workload.lengths)))
        started_s = time.perf_counter()
        generate(workload)
        duration_s = time.perf_counter() - started_s
        write_row(
            {
                "model": drive.case.model.name,
                "workload": workload.name,
                "output_tok_s": round(workload.num_output_tokens / duration_s, 1),
                "duration_s": round(duration_s, 3),
            }
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
