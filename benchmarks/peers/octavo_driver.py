"""Octavo's side of the comparison, LLM in its own process. Arguments: model, dtype, options."""

import json
import sys
import time
from typing import Any

from octavo import LLM, SamplingParams

from .driver import Driver, read_requests, result


def main() -> None:
    driver = Driver()
    model, dtype, options = sys.argv[1:]
    llm = LLM(model, dtype=dtype, **json.loads(options))  # type: ignore[arg-type]

    def generate(requests: str) -> dict[str, Any]:
        prompts, lengths = zip(*read_requests(requests), strict=True)
        params = [SamplingParams(temperature=0, max_tokens=n, ignore_eos=True) for n in lengths]
        started_s = time.perf_counter()
        outputs = llm.generate(list(prompts), params, use_tqdm=False)
        duration_s = time.perf_counter() - started_s
        tokens = [(each.prompt_token_ids, each.outputs[0].token_ids) for each in outputs]
        return result(duration_s, tokens, sum(each.num_cached_tokens for each in outputs))

    def logprobs(texts: list[str], output_len: int) -> list[dict[str, Any]]:
        params = SamplingParams(temperature=0, max_tokens=output_len, ignore_eos=True, logprobs=0)
        answers = []
        for each in llm.generate(texts, params, use_tqdm=False):
            output = each.outputs[0]
            chosen = zip(output.token_ids, output.logprobs or (), strict=True)
            answers.append(
                {
                    "prompt": each.prompt_token_ids,
                    "output": output.token_ids,
                    "logprobs": [position[token].logprob for token, position in chosen],
                }
            )
        return answers

    driver.serve({"generate": generate, "logprobs": logprobs})


if __name__ == "__main__":
    main()
