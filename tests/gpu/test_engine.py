"""The engine on a GPU: its tokens do not depend on graphs, nor on steps that overlap."""

from pathlib import Path
from typing import Any

import pytest

from octavo import LLM, SamplingParams
from tests.router.tiny_tokenizers import byte_level_tokenizer, write_directory
from tests.worker.tiny_models import greedy_tokens, save_tiny_llama

pytestmark = pytest.mark.gpu

# They end one after another, so that decode steps have 9 rows, and then fewer.
LENGTHS = [(7 * i % 31 + 1, 3 * i + 2) for i in range(9)]
ENGINES: dict[str, dict[str, Any]] = {
    "all of it": {},
    "no CUDA graphs": {"enforce_eager": True},
    "no overlap": {"async_scheduling": False},
}


@pytest.mark.usefixtures("cuda")
@pytest.mark.parametrize("options", ENGINES.values(), ids=ENGINES.keys())
def test_greedy_tokens_are_transformers(tmp_path: Path, options: dict[str, Any]) -> None:
    model = save_tiny_llama(tmp_path, vocab_size=420, eos_token_id=2)
    write_directory(tmp_path, byte_level_tokenizer())
    prompts = [
        [(11 * i + 5 * j) % 417 + 3 for j in range(num_input)]
        for i, (num_input, _) in enumerate(LENGTHS)
    ]
    sampling = [
        SamplingParams(temperature=0, max_tokens=num_output, ignore_eos=True)
        for _, num_output in LENGTHS
    ]
    llm = LLM(str(tmp_path), device="cuda", dtype="float32", num_gpu_blocks_override=64, **options)
    results = llm.generate(prompts, sampling, use_tqdm=False)
    llm.close()
    for result, (_, num_output) in zip(results, LENGTHS, strict=True):
        expected = greedy_tokens(model, result.prompt_token_ids, num_output)
        assert result.outputs[0].token_ids == expected
