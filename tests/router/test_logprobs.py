"""Log-probabilities: with the texts of their tokens, one for each, whoever has left."""

from collections.abc import Sequence

from octavo.router.tokenizer import Tokenizer
from octavo.v1 import inference_pb2, scheduling_pb2
from octavo.v1.common_pb2 import FINISH_REASON_STOP, PositionLogprobs, TokenLogprob
from tests.router.conftest import Router
from tests.router.fake_scheduler import FakeScheduler
from tests.router.requests import encode, failure, generate


def positions(token_ids: Sequence[int]) -> list[PositionLogprobs]:
    """Return what a scheduler may send: each token, and token 300 as the best."""
    return [
        PositionLogprobs(
            chosen=TokenLogprob(token_id=token_id, logprob=-index - 0.5, rank=2),
            top=[TokenLogprob(token_id=300, logprob=-0.25, rank=1)],
        )
        for index, token_id in enumerate(token_ids)
    ]


def request(text: str = "hello", *, stop: Sequence[str] = ()) -> inference_pb2.GenerateRequest:
    wanted = generate(text, stop=stop)
    wanted.options.logprobs = 1
    return wanted


async def test_each_token_has_its_own_bytes_be_they_half_a_character(
    router: Router, scheduler: FakeScheduler, tokenizer: Tokenizer
) -> None:
    call = router.inference.Generate(request())
    submitted = await scheduler.submitted.get()
    assert submitted.num_logprobs == 1
    token_ids = encode(tokenizer, " the 日本 😀")
    logprobs = positions(token_ids)
    for position, token_id in enumerate(token_ids):
        scheduler.send_tokens(
            submitted, [token_id], position=position, logprobs=[logprobs[position]]
        )
    scheduler.send_finished(submitted, num_output_tokens=len(token_ids))
    deltas = [event.delta async for event in call if event.HasField("delta")]
    for delta in deltas:
        assert len(delta.logprobs) == delta.num_tokens
    texts = [text for delta in deltas for text in delta.logprobs]
    assert [text.logprobs for text in texts] == logprobs
    assert b"".join(text.texts[0] for text in texts).decode() == " the 日本 😀"
    assert {text.texts[1] for text in texts} == {tokenizer.bytes_of(300)}


async def test_tokens_after_a_stop_string_have_none(
    router: Router, scheduler: FakeScheduler, tokenizer: Tokenizer
) -> None:
    call = router.inference.Generate(request(stop=["STOP"]))
    submitted = await scheduler.submitted.get()
    before, after = encode(tokenizer, " the STOP"), encode(tokenizer, " more")
    token_ids = [*before, *after]
    scheduler.send_tokens(submitted, token_ids, logprobs=positions(token_ids))
    scheduler.send_finished(submitted, FINISH_REASON_STOP, num_output_tokens=len(before))
    deltas = [event.delta async for event in call if event.HasField("delta")]
    assert [t for d in deltas for t in [x.logprobs for x in d.logprobs]] == positions(before)


async def test_those_of_a_client_that_left_are_not_taken_for_anothers(
    router: Router, scheduler: FakeScheduler, tokenizer: Tokenizer
) -> None:
    left = router.inference.Generate(request())
    left_submitted = await scheduler.submitted.get()
    await left.read()
    left.cancel()
    await scheduler.aborted()
    call = router.inference.Generate(request())
    submitted = await scheduler.submitted.get()
    scheduler.send(
        scheduling_pb2.StepOutputs(
            request_key=[left_submitted.request_key, submitted.request_key],
            output_index=[0, 0],
            first_position=[0, 0],
            num_tokens=[1, 1],
            token_ids=[10, 20],
            logprobs=positions([10, 20]),
        )
    )
    scheduler.send_finished(left_submitted, num_output_tokens=1)
    scheduler.send_finished(submitted, num_output_tokens=1)
    deltas = [event.delta async for event in call if event.HasField("delta")]
    assert [text.logprobs.chosen.token_id for d in deltas for text in d.logprobs] == [20]


async def test_columns_without_the_log_probabilities_end_the_attachment(
    router: Router, scheduler: FakeScheduler
) -> None:
    call = router.inference.Generate(request())
    submitted = await scheduler.submitted.get()
    scheduler.send_tokens(submitted, [5])
    assert (await failure(call)).details() == (
        "the scheduler cannot be reached; send the request again"
    )


async def test_those_of_the_prompt_come_first_whole_and_once(
    router: Router, scheduler: FakeScheduler, tokenizer: Tokenizer
) -> None:
    wanted = generate("the cat sat")
    wanted.options.prompt_logprobs = 1
    wanted.options.echo = True
    call = router.inference.Generate(wanted)
    submitted = await scheduler.submitted.get()
    prompt = list(submitted.prompt_token_ids)
    logprobs = positions(prompt)
    # A prompt that was computed again after its first part.
    for start, end in ((1, 2), (1, len(prompt))):
        part = scheduling_pb2.PromptPart(
            request_key=submitted.request_key,
            first_position=start,
            positions=logprobs[start:end],
        )
        scheduler.send(scheduling_pb2.StepOutputs(prompt_logprobs=[part]))
    scheduler.send_tokens(submitted, encode(tokenizer, " on"))
    scheduler.send_finished(submitted, num_output_tokens=1)
    events = [event async for event in call]
    assert events[1].HasField("prompt_logprobs")
    first, *others = events[1].prompt_logprobs.positions
    assert list(first.texts) == [tokenizer.bytes_of(prompt[0])]
    assert not first.HasField("logprobs")
    assert [text.logprobs for text in others] == logprobs[1:]
    assert "".join(event.delta.text for event in events) == "the cat sat on"
