"""vLLM's side of the comparison, in its own environment. Arguments: model directory, dtype."""

import sys
import time
from typing import Any

from vllm import LLM, SamplingParams

from .driver import Driver, read_requests, result


def main() -> None:
    driver = Driver()
    model, dtype = sys.argv[1:]
    llm = LLM(model, dtype=dtype, enable_prefix_caching=True, disable_log_stats=True)

    def generate(requests: str) -> dict[str, Any]:
        read = read_requests(requests)
        prompts = [{"prompt_token_ids": prompt} for prompt, _ in read]
        params = [SamplingParams(temperature=0, max_tokens=n, ignore_eos=True) for _, n in read]
        started_s = time.perf_counter()
        outputs = llm.generate(prompts, params, use_tqdm=False)
        duration_s = time.perf_counter() - started_s
        tokens = [(each.prompt_token_ids, list(each.outputs[0].token_ids)) for each in outputs]
        return result(duration_s, tokens, sum(each.num_cached_tokens or 0 for each in outputs))

    driver.serve({"generate": generate})


if __name__ == "__main__":
    main()
