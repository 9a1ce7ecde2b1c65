"""Log-probabilities of the offline API, on a tiny model, against transformers' logits."""

import math
from pathlib import Path

import pytest
import tokenizers
import torch
from transformers import LlamaForCausalLM

from octavo import LLM, RequestOutput, SamplingParams, offline_engine
from octavo.errors import InvalidArgument
from octavo.request_output import PositionLogprobs

PROMPT = "the cat sat on"


@pytest.fixture(scope="module")
def model(path: Path) -> LlamaForCausalLM:
    return LlamaForCausalLM.from_pretrained(path).eval()


def expected(model: LlamaForCausalLM, token_ids: list[int]) -> torch.Tensor:
    """Return transformers' log-probabilities of every token after each of `token_ids`."""
    with torch.inference_mode():
        logits: torch.Tensor = model(torch.tensor([token_ids])).logits[0]
    return logits.log_softmax(dim=-1)


def check_position(
    told: PositionLogprobs, chosen: int, row: torch.Tensor, num_best: int, llm_text: str
) -> None:
    """Compare what is told of one position with all its log-probabilities, `row`."""
    best = row.topk(num_best).indices.tolist()
    assert set(told) == {chosen, *best}
    assert next(iter(told)) == chosen
    assert told[chosen].decoded_token == llm_text
    for token_id, logprob in told.items():
        assert logprob.logprob == pytest.approx(row[token_id].item(), abs=1e-4)
        assert logprob.rank == 1 + int((row > row[token_id]).sum())


def check_outputs(
    result: RequestOutput,
    model: LlamaForCausalLM,
    tokenizer: tokenizers.Tokenizer,
    num_best: int,
) -> None:
    prompt = result.prompt_token_ids
    for output in result.outputs:
        rows = expected(model, prompt + output.token_ids)[len(prompt) - 1 : -1]
        assert output.logprobs is not None and len(output.logprobs) == len(output.token_ids)
        for told, token_id, row in zip(output.logprobs, output.token_ids, rows, strict=True):
            check_position(told, token_id, row, num_best, tokenizer.decode([token_id]))
        total = sum(
            row[token_id].item() for token_id, row in zip(output.token_ids, rows, strict=True)
        )
        assert output.cumulative_logprob == pytest.approx(total, abs=1e-3)


@pytest.mark.parametrize("num_best", [0, 1, 5])
def test_every_token_has_the_logprobs_that_transformers_gives_it(
    llm: LLM, model: LlamaForCausalLM, tokenizer: tokenizers.Tokenizer, num_best: int
) -> None:
    # Drawn by other probabilities than those that are told, which are the model's own.
    params = SamplingParams(
        temperature=1.5, top_k=50, seed=3, n=2, max_tokens=12, ignore_eos=True, logprobs=num_best
    )
    (result,) = llm.generate(PROMPT, params)
    assert result.outputs[0].token_ids != result.outputs[1].token_ids
    check_outputs(result, model, tokenizer, num_best)


def test_the_prompt_has_its_logprobs_even_where_it_is_cached(
    llm: LLM, model: LlamaForCausalLM, tokenizer: tokenizers.Tokenizer
) -> None:
    prompt = PROMPT * 5
    (plain,) = llm.generate(prompt, SamplingParams(max_tokens=1))
    assert plain.prompt_logprobs is None
    (result,) = llm.generate(prompt, SamplingParams(max_tokens=1, prompt_logprobs=2))
    ids = result.prompt_token_ids
    assert result.prompt_logprobs is not None and len(result.prompt_logprobs) == len(ids)
    first, *others = result.prompt_logprobs
    assert first is None
    for told, token_id, row in zip(others, ids[1:], expected(model, ids)[:-1], strict=True):
        assert told is not None
        check_position(told, token_id, row, 2, tokenizer.decode([token_id]))


def test_only_those_who_ask_get_them_whatever_runs_beside(
    llm: LLM, model: LlamaForCausalLM, tokenizer: tokenizers.Tokenizer
) -> None:
    plain = SamplingParams(temperature=0, max_tokens=9, ignore_eos=True)
    asking = SamplingParams(temperature=0, max_tokens=6, ignore_eos=True, logprobs=2)
    (free,) = llm.generate(PROMPT, plain)
    stop = free.outputs[0].text[3:5]
    stopped = SamplingParams(temperature=0, max_tokens=30, ignore_eos=True, logprobs=1, stop=stop)
    params = [plain, asking, stopped, plain, asking]
    results = llm.generate([PROMPT, PROMPT, PROMPT, "hello", "hello world"], params)
    for index in (0, 3):
        (output,) = results[index].outputs
        assert (output.logprobs, output.cumulative_logprob) == (None, None)
    for index in (1, 4):
        check_outputs(results[index], model, tokenizer, 2)
    check_outputs(results[2], model, tokenizer, 1)
    assert results[2].outputs[0].stop_reason == stop
    assert results[0].outputs[0].token_ids == free.outputs[0].token_ids


def test_more_than_are_offered_are_refused_and_the_next_call_is_served(llm: LLM) -> None:
    with pytest.raises(InvalidArgument, match="logprobs is 21"):
        llm.generate(PROMPT, SamplingParams(logprobs=21))
    with pytest.raises(InvalidArgument, match="prompt_logprobs is 6"):
        llm.generate(PROMPT, SamplingParams(prompt_logprobs=6))
    (result,) = llm.generate(PROMPT, SamplingParams(max_tokens=1, logprobs=0))
    assert result.outputs[0].logprobs is not None and len(result.outputs[0].logprobs) == 1


def test_a_step_that_brings_much_waits_for_what_others_brought_to_be_read(
    llm: LLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(offline_engine, "_READ_INTERVAL_S", math.inf)
    params = SamplingParams(n=8, seed=1, max_tokens=100, ignore_eos=True, logprobs=20)
    (result,) = llm.generate(PROMPT, params)
    for output in result.outputs:
        assert output.logprobs is not None and len(output.logprobs) == 100
