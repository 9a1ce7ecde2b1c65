"""The Inference service through a real socket, as a client sees it."""

import asyncio

from octavo.block_hash import extend_chain, root_hash
from octavo.router.tokenizer import Tokenizer
from octavo.v1 import inference_pb2, scheduling_pb2
from octavo.v1.common_pb2 import (
    FINISH_REASON_LENGTH,
    FINISH_REASON_STOP,
    TokenIds,
)
from tests.router.conftest import MODEL, Router
from tests.router.fake_scheduler import FakeScheduler
from tests.router.requests import PROMPT, encode, generate
from tests.router.tiny_tokenizers import EOS_TOKEN_ID


async def test_a_request_from_text_to_usage(
    router: Router, scheduler: FakeScheduler, tokenizer: Tokenizer
) -> None:
    call = router.inference.Generate(generate(return_token_ids=True))
    submitted = await scheduler.submitted.get()
    prompt_token_ids = encode(tokenizer, PROMPT)
    assert list(submitted.prompt_token_ids) == prompt_token_ids
    hashes = extend_chain(root_hash(b"weights", ""), prompt_token_ids, 4)
    assert hashes
    assert submitted.block_hashes == b"".join(hashes)
    assert submitted.max_tokens == 200 - len(prompt_token_ids)
    assert list(submitted.stop_token_ids) == [EOS_TOKEN_ID]
    assert not submitted.HasField("timeout_ns")

    output = [*encode(tokenizer, " on the 日本"), EOS_TOKEN_ID]
    for position, token_id in enumerate(output):
        scheduler.send_tokens(submitted, [token_id], position=position)
    scheduler.send_finished(
        submitted, FINISH_REASON_STOP, stop_token_id=EOS_TOKEN_ID, num_output_tokens=len(output)
    )
    events = [event async for event in call]

    assert [event.sequence_number for event in events] == list(range(len(events)))
    started, *deltas, finished, usage = events
    assert started.started.model == MODEL
    assert list(started.started.prompt_token_ids) == prompt_token_ids
    assert started.started.num_prompt_tokens == len(prompt_token_ids)
    assert "".join(event.delta.text for event in deltas) == " on the 日本"
    assert [i for event in deltas for i in event.delta.token_ids] == output
    position = 0
    for event in deltas:
        assert event.delta.position == position
        position += event.delta.num_tokens
    assert position == len(output)
    assert (finished.finished.reason, finished.finished.stop_token_id) == (
        FINISH_REASON_STOP,
        EOS_TOKEN_ID,
    )
    assert usage.usage.num_output_tokens == len(output)


async def test_started_goes_out_before_the_first_token(
    router: Router, scheduler: FakeScheduler
) -> None:
    call = router.inference.Generate(generate(request_id="mine"))
    started = await call.read()
    assert started.started.request_id == "mine"
    assert ("x-request-id", "mine") in list(await call.initial_metadata())
    assert not started.started.prompt_token_ids


async def test_a_conversation_is_rendered_and_special_tokens_are_not_added_twice(
    router: Router, scheduler: FakeScheduler, tokenizer: Tokenizer
) -> None:
    request = inference_pb2.ChatRequest(
        options=inference_pb2.GenerationOptions(model="alias", seed=7, n=2),
        messages=[inference_pb2.ChatMessage(role="user", content="hello")],
    )
    call = router.inference.Chat(request, timeout=60)
    submitted = await scheduler.submitted.get()
    rendered = "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n"
    assert list(submitted.prompt_token_ids) == encode(tokenizer, rendered)
    assert list(submitted.seeds) == [7, 8]
    assert submitted.n == 2
    # gRPC rounds deadlines up.
    assert 0 < submitted.timeout_ns < 61_000_000_000
    call.cancel()


async def test_outputs_interleave_and_each_has_its_own_end(
    router: Router, scheduler: FakeScheduler, tokenizer: Tokenizer
) -> None:
    call = router.inference.Generate(generate(n=2))
    submitted = await scheduler.submitted.get()
    texts = [" hello world", " 日本語"]
    tokens = [encode(tokenizer, text) for text in texts]
    for position in range(max(map(len, tokens))):
        entries = [(i, ids[position]) for i, ids in enumerate(tokens) if position < len(ids)]
        scheduler.send(
            scheduling_pb2.StepOutputs(
                request_key=[submitted.request_key] * len(entries),
                output_index=[index for index, _ in entries],
                first_position=[position] * len(entries),
                num_tokens=[1] * len(entries),
                token_ids=[token_id for _, token_id in entries],
            )
        )
    scheduler.send_finished(submitted, output_index=1)
    scheduler.send_finished(submitted, num_output_tokens=sum(map(len, tokens)))
    collected = ["", ""]
    ends = []
    async for event in call:
        if event.HasField("delta"):
            collected[event.delta.output_index] += event.delta.text
        elif event.HasField("finished"):
            ends.append(event.finished.output_index)
    assert collected == texts
    assert sorted(ends) == [0, 1]
    assert event.HasField("usage")


async def test_a_stop_string_ends_its_output_and_the_scheduler_hears_of_it(
    router: Router, scheduler: FakeScheduler, tokenizer: Tokenizer
) -> None:
    call = router.inference.Generate(generate(stop=["STOP"]))
    submitted = await scheduler.submitted.get()
    before, after = encode(tokenizer, " the catSTOP"), encode(tokenizer, " more")
    scheduler.send_tokens(submitted, before)
    scheduler.send_tokens(submitted, after, position=len(before))
    abort = await scheduler.aborted()
    assert abort.reason == scheduling_pb2.ABORT_REASON_STOP_STRING
    assert (abort.output_index, abort.final_token_count) == (0, len(before))
    scheduler.send_finished(submitted, FINISH_REASON_STOP, num_output_tokens=len(before))
    events = [event async for event in call]
    assert "".join(event.delta.text for event in events) == " the cat"
    assert events[-2].finished.stop_string == "STOP"
    assert events[-2].finished.reason == FINISH_REASON_STOP
    assert events[-1].usage.num_output_tokens == len(before)


async def test_a_client_that_cancels_is_told_to_the_scheduler(
    router: Router, scheduler: FakeScheduler
) -> None:
    call = router.inference.Generate(generate())
    submitted = await scheduler.submitted.get()
    await call.read()
    call.cancel()
    abort = await scheduler.aborted()
    assert abort.request_key == submitted.request_key
    assert abort.reason == scheduling_pb2.ABORT_REASON_CLIENT
    assert not abort.HasField("output_index")


async def test_a_request_accepted_after_its_client_left_is_aborted(
    router: Router, scheduler: FakeScheduler
) -> None:
    scheduler.accepting.clear()
    call = router.inference.Generate(generate())
    submitted = await scheduler.submitted.get()
    call.cancel()
    # Its tokens go to nobody, and the next client is none the worse for them.
    other = router.inference.Generate(generate("hello"))
    await scheduler.submitted.get()
    assert scheduler.controls.empty()
    scheduler.accepting.set()
    assert (await scheduler.aborted()).request_key == submitted.request_key
    scheduler.send_tokens(submitted, [5])
    assert (await other.read()).HasField("started")


async def test_max_tokens_is_at_most_what_the_context_holds(
    router: Router, scheduler: FakeScheduler, tokenizer: Tokenizer
) -> None:
    request = generate()
    for max_tokens, expected in ((5, 5), (10_000, 200 - len(encode(tokenizer, PROMPT)))):
        request.options.stop.max_tokens = max_tokens
        call = router.inference.Generate(request)
        assert (await scheduler.submitted.get()).max_tokens == expected
        call.cancel()


async def test_token_ids_are_used_as_they_are(router: Router, scheduler: FakeScheduler) -> None:
    request = inference_pb2.GenerateRequest(
        options=inference_pb2.GenerationOptions(model=MODEL),
        token_ids=TokenIds(ids=[400, 3, 3]),
    )
    call = router.inference.Generate(request)
    assert list((await scheduler.submitted.get()).prompt_token_ids) == [400, 3, 3]
    call.cancel()


async def test_what_comes_while_the_client_reads_slowly_becomes_one_delta(
    router: Router, scheduler: FakeScheduler, tokenizer: Tokenizer
) -> None:
    """All tokens of one message of the scheduler wake the client's stream once."""
    call = router.inference.Generate(generate())
    submitted = await scheduler.submitted.get()
    await call.read()
    tokens = encode(tokenizer, "the cat sat on the mat")
    scheduler.send(
        scheduling_pb2.StepOutputs(
            request_key=[submitted.request_key] * len(tokens),
            output_index=[0] * len(tokens),
            first_position=range(len(tokens)),
            num_tokens=[1] * len(tokens),
            token_ids=tokens,
        )
    )
    delta = (await call.read()).delta
    assert (delta.text, delta.num_tokens) == ("the cat sat on the mat", len(tokens))
    scheduler.send_finished(submitted, FINISH_REASON_LENGTH, num_output_tokens=len(tokens))
    assert (await call.read()).HasField("finished")


async def test_200_requests_at_once_each_get_their_own_tokens(
    router: Router, scheduler: FakeScheduler, tokenizer: Tokenizer
) -> None:
    async def answer() -> None:
        for _ in range(200):
            submitted = await scheduler.submitted.get()
            # The prompt comes back.
            token_ids = list(submitted.prompt_token_ids)
            for position, token_id in enumerate(token_ids):
                scheduler.send_tokens(submitted, [token_id], position=position)
            scheduler.send_finished(submitted, num_output_tokens=len(token_ids))

    async def ask(number: int) -> str:
        call = router.inference.Generate(generate(f"request {number}"))
        return "".join([event.delta.text async for event in call])

    answering = asyncio.create_task(answer())
    answers = await asyncio.gather(*(ask(number) for number in range(200)))
    await answering
    assert answers == [f"request {number}" for number in range(200)]
