"""transformers' side of the comparison: one static batch. Arguments: model directory, dtype."""

import sys
import time
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from .driver import Driver, read_requests, result


def main() -> None:
    driver = Driver()
    directory, dtype = sys.argv[1:]
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=getattr(torch, dtype)).eval()

    def generate(requests: str) -> dict[str, Any]:
        prompts, lengths = zip(*read_requests(requests), strict=True)
        batch = torch.tensor(prompts)
        started_s = time.perf_counter()
        tokens = model.generate(
            batch,
            attention_mask=torch.ones_like(batch),
            do_sample=False,
            min_new_tokens=lengths[0],
            max_new_tokens=lengths[0],
        )[:, batch.shape[1] :].tolist()
        duration_s = time.perf_counter() - started_s
        return result(duration_s, list(zip(prompts, tokens, strict=True)), None)

    @torch.inference_mode()
    def score(prompt: list[int], output: list[int]) -> list[float]:
        """Return the log-probability of each token of `output` after what precedes it."""
        logits = model(torch.tensor([prompt + output])).logits[0, len(prompt) - 1 : -1]
        every = logits.float().log_softmax(dim=-1)
        chosen: list[float] = every.gather(1, torch.tensor(output)[:, None])[:, 0].tolist()
        return chosen

    driver.serve({"generate": generate, "score": score})


if __name__ == "__main__":
    main()
