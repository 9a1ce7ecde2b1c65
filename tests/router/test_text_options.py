"""Options that change the text alone: what is shown of the prompt, of special tokens, of stops."""

from typing import Any

import pytest

from octavo.block_hash import extend_chain, root_hash
from octavo.router.tokenizer import Tokenizer
from octavo.v1 import inference_pb2
from octavo.v1.common_pb2 import FINISH_REASON_STOP
from tests.router.conftest import MODEL, Router
from tests.router.fake_scheduler import FakeScheduler
from tests.router.requests import PROMPT, encode, generate
from tests.router.tiny_tokenizers import EOS_TOKEN_ID


async def text_of(call: Any) -> str:
    return "".join([event.delta.text async for event in call])


async def test_echo_begins_each_output_with_the_prompt(
    router: Router, scheduler: FakeScheduler, tokenizer: Tokenizer
) -> None:
    request = generate(n=2, stop=["cat"])
    request.options.echo = True
    call = router.inference.Generate(request)
    submitted = await scheduler.submitted.get()
    scheduler.send_tokens(submitted, encode(tokenizer, " hello"))
    scheduler.send_finished(submitted)
    scheduler.send_finished(submitted, output_index=1, num_output_tokens=1)
    texts = ["", ""]
    async for event in call:
        texts[event.delta.output_index] += event.delta.text
    assert texts == [PROMPT + " hello", PROMPT]


async def test_a_truncated_prompt_keeps_its_end_and_a_salt_keeps_its_blocks_apart(
    router: Router, scheduler: FakeScheduler, tokenizer: Tokenizer
) -> None:
    request = generate()
    request.options.truncate_prompt_tokens = 5
    request.options.cache_salt = "mine"
    call = router.inference.Generate(request)
    submitted = await scheduler.submitted.get()
    kept = encode(tokenizer, PROMPT)[-5:]
    assert list(submitted.prompt_token_ids) == kept
    assert submitted.cache_salt == b"mine"
    root = root_hash(b"weights", "", cache_salt=b"mine")
    assert submitted.block_hashes == b"".join(extend_chain(root, kept, 4))
    call.cancel()


@pytest.mark.parametrize(
    ("include_stop", "skip_special", "expected"),
    [
        (False, True, "<hi"),
        (True, True, "<hi"),
        (False, False, "<|im_start|><hi"),
        (True, False, "<|im_start|><hi<|im_end|>"),
    ],
)
async def test_special_tokens_and_the_one_that_stops_are_shown_if_wanted(
    router: Router,
    scheduler: FakeScheduler,
    tokenizer: Tokenizer,
    include_stop: bool,
    skip_special: bool,
    expected: str,
) -> None:
    request = generate()
    request.options.skip_special_tokens = skip_special
    request.options.stop.include_stop_str_in_output = include_stop
    call = router.inference.Generate(request)
    submitted = await scheduler.submitted.get()
    token_ids = [1, *encode(tokenizer, "<hi"), EOS_TOKEN_ID]
    scheduler.send_tokens(submitted, token_ids)
    scheduler.send_finished(
        submitted, FINISH_REASON_STOP, stop_token_id=EOS_TOKEN_ID, num_output_tokens=len(token_ids)
    )
    assert await text_of(call) == expected


async def test_a_stop_string_is_shown_if_wanted(
    router: Router, scheduler: FakeScheduler, tokenizer: Tokenizer
) -> None:
    request = generate(stop=["STOP"])
    request.options.stop.include_stop_str_in_output = True
    call = router.inference.Generate(request)
    submitted = await scheduler.submitted.get()
    token_ids = encode(tokenizer, " the catSTOP")
    scheduler.send_tokens(submitted, [*token_ids, *encode(tokenizer, " more")])
    scheduler.send_finished(submitted, FINISH_REASON_STOP, num_output_tokens=len(token_ids))
    assert await text_of(call) == " the catSTOP"


async def test_a_last_message_is_gone_on_from(
    router: Router, scheduler: FakeScheduler, tokenizer: Tokenizer
) -> None:
    request = inference_pb2.ChatRequest(
        options=inference_pb2.GenerationOptions(model=MODEL),
        messages=[
            inference_pb2.ChatMessage(role="user", content="hello"),
            inference_pb2.ChatMessage(role="assistant", content="the cat "),
        ],
        continue_final_message=True,
    )
    call = router.inference.Chat(request)
    submitted = await scheduler.submitted.get()
    rendered = "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\nthe cat "
    assert list(submitted.prompt_token_ids) == encode(tokenizer, rendered)
    call.cancel()


async def test_sampling_is_submitted_as_it_was_asked_for(
    router: Router, scheduler: FakeScheduler, tokenizer: Tokenizer
) -> None:
    request = generate()
    request.options.sampling.min_p = 0.25
    request.options.sampling.logit_bias_token_ids.append(7)
    request.options.sampling.logit_bias_values.append(-3)
    request.options.stop.min_tokens = 199
    request.options.bad_words.append("cat")
    call = router.inference.Generate(request)
    submitted = await scheduler.submitted.get()
    assert submitted.sampling.min_p == 0.25
    assert not submitted.sampling.HasField("repetition_penalty")
    assert list(submitted.sampling.logit_bias_token_ids) == [7]
    # The context ends an output before it has so many.
    assert submitted.min_tokens == submitted.max_tokens
    spellings = [encode(tokenizer, "cat"), encode(tokenizer, " cat")]
    assert [list(word.ids) for word in submitted.bad_words] == spellings
    call.cancel()
