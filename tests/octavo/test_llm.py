"""Tests of LLM, on a tiny model, against transformers and the same text decoded at once."""

import asyncio
import gc
import subprocess
import sys
import threading
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch
from transformers import LlamaForCausalLM

from octavo import LLM, SamplingParams, offline_engine
from octavo.errors import FailedPrecondition, InvalidArgument
from octavo.offline_requests import Prompt
from octavo.scheduler.config import SchedulerConfig
from octavo.scheduler.server import scheduler_config
from octavo.startup import StartupError

PROMPT = "the cat sat on"
GREEDY = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True)


def greedy_tokens(path: Path, prompt: list[int], count: int) -> list[int]:
    """Return what transformers generates."""
    model = LlamaForCausalLM.from_pretrained(path)
    ids = model.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        do_sample=False,
        max_new_tokens=count,
        eos_token_id=None,
    )
    tokens: list[int] = ids[0, len(prompt) :].tolist()
    return tokens


def test_generates_what_transformers_generates(
    llm: LLM, path: Path, tokenizer: tokenizers.Tokenizer
) -> None:
    prompt = tokenizer.encode(PROMPT).ids
    expected = greedy_tokens(path, prompt, 12)
    (result,) = llm.generate(PROMPT, GREEDY)
    assert (result.prompt, result.prompt_token_ids, result.finished) == (PROMPT, prompt, True)
    (output,) = result.outputs
    assert output.token_ids == expected
    assert output.text == tokenizer.decode(expected)
    assert (output.index, output.finish_reason, output.stop_reason) == (0, "length", None)


def test_prompts_of_every_kind_are_one_request_each_in_their_order(
    llm: LLM, tokenizer: tokenizers.Tokenizer
) -> None:
    ids = tokenizer.encode(PROMPT).ids
    prompts: list[Prompt] = [
        PROMPT,
        ids,
        {"prompt": PROMPT},
        {"prompt_token_ids": ids},
        "hello world",
    ]
    results = llm.generate(prompts, GREEDY)
    assert [result.prompt for result in results] == [PROMPT, None, PROMPT, None, "hello world"]
    *same, other = [result.outputs[0].token_ids for result in results]
    assert same == [same[0]] * 4
    assert other != same[0]
    assert len({result.request_id for result in results}) == 5
    (single,) = llm.generate(ids, GREEDY)
    assert single.outputs[0].token_ids == same[0]


def test_outputs_end_at_a_stop_string_each_by_itself(llm: LLM) -> None:
    (free,) = llm.generate(PROMPT, GREEDY)
    text = free.outputs[0].text
    stop = text[4:6]
    (result,) = llm.generate(
        PROMPT, SamplingParams(temperature=0, n=2, max_tokens=12, ignore_eos=True, stop=stop)
    )
    for output in result.outputs:
        assert output.text == text[: text.index(stop)]
        assert (output.finish_reason, output.stop_reason) == ("stop", stop)


def test_after_a_stop_string_nothing_is_computed_in_vain(llm: LLM) -> None:
    (free,) = llm.generate(PROMPT, GREEDY)
    stats = llm._engine._scheduler._scheduler.stats
    num_steps_before = stats.num_steps
    params = replace(GREEDY, max_tokens=200, stop=free.outputs[0].text[:8])
    llm.generate(PROMPT, params)
    assert stats.num_steps - num_steps_before <= len(free.outputs[0].token_ids)


def test_a_stop_token_is_the_reason_that_it_was_asked_to_be(llm: LLM) -> None:
    (free,) = llm.generate(PROMPT, GREEDY)
    tokens = free.outputs[0].token_ids
    stop = tokens[3]
    (result,) = llm.generate(
        PROMPT, SamplingParams(temperature=0, max_tokens=12, stop_token_ids=[stop])
    )
    assert result.outputs[0].token_ids == tokens[: tokens.index(stop) + 1]
    assert (result.outputs[0].finish_reason, result.outputs[0].stop_reason) == ("stop", stop)


def test_parameters_for_each_prompt_are_its_own(llm: LLM) -> None:
    lengths = [3, 1, 7]
    params = [SamplingParams(max_tokens=n, seed=n, ignore_eos=True) for n in lengths]
    results = llm.generate([PROMPT] * 3, params)
    assert [len(result.outputs[0].token_ids) for result in results] == lengths


def test_a_seed_draws_the_same_whatever_runs_beside_it(llm: LLM) -> None:
    params = SamplingParams(seed=7, n=3, max_tokens=10, ignore_eos=True)
    (alone,) = llm.generate(PROMPT, params)
    beside = llm.generate(["hello", PROMPT, "world"], params)[1]
    assert [o.token_ids for o in alone.outputs] == [o.token_ids for o in beside.outputs]
    assert len({tuple(output.token_ids) for output in alone.outputs}) == 3


def test_a_conversation_goes_through_the_chat_template(
    llm: LLM, tokenizer: tokenizers.Tokenizer
) -> None:
    message = {"role": "user", "content": "hello"}
    rendered = "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n"
    one = llm.chat([message], GREEDY)
    two = llm.chat([[message], [message]], GREEDY)
    expected = tokenizer.encode(rendered, add_special_tokens=False).ids
    assert [result.prompt_token_ids for result in (*one, *two)] == [expected] * 3
    (as_prompt,) = llm.generate({"prompt_token_ids": expected}, GREEDY)
    assert one[0].outputs[0].token_ids == as_prompt.outputs[0].token_ids


def test_messages_are_those_of_the_rest_api(llm: LLM, tokenizer: tokenizers.Tokenizer) -> None:
    parts = [{"type": "text", "text": "hel"}, {"type": "text", "text": "lo"}]
    (plain,) = llm.chat([{"role": "system", "content": "hel\nlo"}], GREEDY)
    (in_parts,) = llm.chat([{"role": "developer", "content": parts}], GREEDY)
    assert in_parts.prompt_token_ids == plain.prompt_token_ids


def test_tools_go_to_a_chat_template_of_ones_own(
    path: Path, tmp_path: Path, tokenizer: tokenizers.Tokenizer
) -> None:
    template = tmp_path / "template.jinja"
    template.write_text("{{ tools[0].function.name }}: {{ messages[0].content }}")
    llm = LLM(str(path), dtype="float32", kv_cache_memory_bytes=1 << 18, chat_template=template)
    tool = {"type": "function", "function": {"name": "add"}}
    (result,) = llm.chat([{"role": "user", "content": "hello"}], GREEDY, tools=[tool])
    assert tokenizer.decode(result.prompt_token_ids) == "add: hello"
    llm.close()
    with pytest.raises(FailedPrecondition, match="was closed"):
        llm.generate(PROMPT)


def test_more_prompts_than_rows_and_blocks_all_come_back(path: Path) -> None:
    crowded = LLM(str(path), dtype="float32", num_gpu_blocks_override=8, max_num_seqs=4)
    roomy = LLM(str(path), dtype="float32", num_gpu_blocks_override=256, max_num_seqs=32)
    prompts = [PROMPT + " mat" * n for n in range(20)]
    params = SamplingParams(temperature=0, max_tokens=24, ignore_eos=True)
    expected = [result.outputs[0].token_ids for result in roomy.generate(prompts, params)]
    assert [result.outputs[0].token_ids for result in crowded.generate(prompts, params)] == expected
    crowded.close()
    roomy.close()


def test_the_queue_of_a_server_does_not_bound_a_call(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def with_a_short_queue(*args: Any, **options: Any) -> SchedulerConfig:
        config = scheduler_config(*args, **options)
        return replace(config, max_num_queued_requests=1, max_num_queued_tokens=10)

    monkeypatch.setattr(offline_engine, "scheduler_config", with_a_short_queue)
    llm = LLM(str(path), max_num_seqs=2)
    assert len(llm.generate([PROMPT] * 8, GREEDY)) == 8
    llm.close()


def test_while_a_model_is_there_no_garbage_is_looked_for_in_what_was_loaded(path: Path) -> None:
    llm = LLM(str(path), num_gpu_blocks_override=8)
    assert gc.get_freeze_count() > 0
    llm.close()
    assert gc.get_freeze_count() == 0


def test_an_error_names_the_field_and_the_next_call_is_served(llm: LLM) -> None:
    with pytest.raises(InvalidArgument, match="temperature is 7;.*between 0 and 2"):
        llm.generate([PROMPT, "world"], SamplingParams(temperature=7))
    with pytest.raises(InvalidArgument, match="max_tokens is -1; expected `int` >= 1"):
        llm.generate(PROMPT, SamplingParams(max_tokens=-1))
    with pytest.raises(InvalidArgument, match="2 sampling_params for 1 prompts"):
        llm.generate(PROMPT, [GREEDY, GREEDY])
    with pytest.raises(InvalidArgument, match='either "prompt" or "prompt_token_ids"'):
        llm.generate({"text": PROMPT}, GREEDY)
    with pytest.raises(InvalidArgument, match="prompt is .*; expected `int` >= 0"):
        llm.generate([[5, -1]], GREEDY)
    with pytest.raises(InvalidArgument, match="has type 'image_url', which is not offered"):
        llm.chat([{"role": "user", "content": [{"type": "image_url"}]}], GREEDY)
    with pytest.raises(InvalidArgument, match="tool_calls is not offered yet"):
        llm.chat([{"role": "assistant", "tool_calls": [{"id": "1"}]}], GREEDY)
    with pytest.raises(InvalidArgument, match=r"messages\[0\] is .*; expected `str`, got `int`"):
        llm.chat([{"role": 7, "content": "hello"}], GREEDY)
    with pytest.raises(InvalidArgument, match=r"tools\[0\] must have type 'function'"):
        llm.chat([{"role": "user", "content": "hello"}], GREEDY, tools=[{"name": "add"}])
    assert llm.generate(PROMPT, GREEDY)[0].finished


def test_no_prompts_bring_no_outputs(llm: LLM) -> None:
    assert llm.generate([], GREEDY) == []


async def test_it_works_where_an_event_loop_runs_already(llm: LLM) -> None:
    assert asyncio.get_running_loop().is_running()
    assert llm.generate(PROMPT, GREEDY)[0].finished


def test_an_interrupt_ends_what_runs_and_leaves_the_model_usable(
    llm: LLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = Future.result

    def interrupt(future: "Future[object]", timeout: float | None = None) -> object:
        if threading.current_thread() is threading.main_thread():
            raise KeyboardInterrupt
        return result(future, timeout)

    scheduler = llm._engine._scheduler._scheduler
    with monkeypatch.context() as patch:
        patch.setattr(Future, "result", interrupt)
        with pytest.raises(KeyboardInterrupt):
            llm.generate(PROMPT, SamplingParams(max_tokens=240, ignore_eos=True))
    assert llm.generate(PROMPT, GREEDY)[0].finished
    assert scheduler.is_idle
    scheduler.check_invariants()


def test_a_model_that_is_not_there_is_said_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="there is no model at"):
        LLM(str(tmp_path / "missing"))


def test_a_model_that_cannot_be_loaded_leaves_no_thread(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    with pytest.raises(StartupError):
        LLM(str(tmp_path))
    left = {thread.name for thread in set(threading.enumerate()) - before}
    assert "octavo-engine" not in left


def test_importing_octavo_loads_neither_torch_nor_a_service() -> None:
    code = (
        "import sys, octavo; names = set(sys.modules);"
        "sys.exit(bool(names & {'torch', 'grpc', 'octavo.scheduler', 'octavo.worker'}))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_sampling_parameters_reach_the_model(llm: LLM) -> None:
    (free,) = llm.generate(PROMPT, GREEDY)
    banned = free.outputs[0].token_ids[0]
    bias = {banned: -100.0}
    params = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True, logit_bias=bias)
    (biased,) = llm.generate(PROMPT, params)
    assert banned not in biased.outputs[0].token_ids
    params = SamplingParams(max_tokens=12, seed=1, min_p=1.0, ignore_eos=True)
    (most_probable,) = llm.generate(PROMPT, params)
    assert most_probable.outputs[0].token_ids == free.outputs[0].token_ids
    params = SamplingParams(max_tokens=4, allowed_token_ids=[banned], ignore_eos=True)
    assert llm.generate(PROMPT, params)[0].outputs[0].token_ids == [banned] * 4


def test_a_conversation_goes_on_from_its_last_message(
    llm: LLM, tokenizer: tokenizers.Tokenizer
) -> None:
    messages = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "the cat"}]
    (result,) = llm.chat(messages, GREEDY, add_generation_prompt=False, continue_final_message=True)
    text = tokenizer.decode(result.prompt_token_ids, skip_special_tokens=False)
    assert text.endswith("the cat")


def test_without_parameters_outputs_are_as_short_as_vllms(llm: LLM) -> None:
    (result,) = llm.generate([PROMPT])
    assert 1 <= len(result.outputs[0].token_ids) <= 16
