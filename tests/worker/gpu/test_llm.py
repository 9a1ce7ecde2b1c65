"""LLM finds the device by itself, and generates on it what transformers does."""

from pathlib import Path

from octavo import LLM, SamplingParams
from tests.router.tiny_tokenizers import byte_level_tokenizer, write_directory
from tests.worker.tiny_models import greedy_tokens, save_tiny_llama

PROMPT = "the cat sat on"
COUNT = 5


def test_llm_generates_what_transformers_does(tmp_path: Path) -> None:
    model = save_tiny_llama(tmp_path, num_hidden_layers=1, vocab_size=420, eos_token_id=2)
    tokenizer = byte_level_tokenizer()
    write_directory(tmp_path, tokenizer)
    llm = LLM(str(tmp_path), dtype="float32", num_gpu_blocks_override=16, max_num_seqs=4)
    sampling = SamplingParams(temperature=0, max_tokens=COUNT, ignore_eos=True, logprobs=1)
    (result,) = llm.generate(PROMPT, sampling, use_tqdm=False)
    llm.close()
    expected = greedy_tokens(model, result.prompt_token_ids, COUNT)
    (output,) = result.outputs
    assert output.token_ids == expected
    assert output.text == tokenizer.decode(expected)
