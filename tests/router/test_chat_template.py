"""Chat templates: rendered as transformers does, and harmless when they are not."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from octavo.errors import InvalidArgument
from octavo.router.chat_template import ChatTemplate
from octavo.router.model_text import TemplateSource
from octavo.router.prompt_validation import ValidConversation
from octavo.startup import StartupError
from tests.router import templates

MAX_CHARACTERS = 10_000
VARIABLES = {"bos_token": "<s>", "eos_token": "</s>"}

CONVERSATIONS = {
    "question": [{"role": "user", "content": "What is 2 < 3 & \"4\" 'five'?"}],
    "system": [
        {"role": "system", "content": "  Be brief.\n"},
        {"role": "user", "content": "日本語 😀\n\n"},
    ],
    "turns": [
        {"role": "user", "content": "a?"},
        {"role": "assistant", "content": "<think>hm</think>\n\n answer "},
        {"role": "user", "content": "and {{ messages }} {% raw %}"},
    ],
}

Start = Callable[[str], "asyncio.Future[ChatTemplate]"]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    async with AsyncExitStack() as stack:

        async def started(template: str) -> ChatTemplate:
            chat_template = ChatTemplate(TemplateSource("model", template, VARIABLES))
            await chat_template.start()
            stack.push_async_callback(chat_template.close)
            return chat_template

        yield lambda template: asyncio.ensure_future(started(template))


@pytest.mark.parametrize("conversation", CONVERSATIONS)
@pytest.mark.parametrize("name", templates.ALL)
async def test_renders_as_transformers_does(start: Start, name: str, conversation: str) -> None:
    template = templates.ALL[name]
    messages = CONVERSATIONS[conversation]
    (expected,), _ = render_jinja_template(
        [messages], chat_template=template, add_generation_prompt=True, **VARIABLES
    )
    assert (
        await (await start(template)).render(ValidConversation(messages=messages), MAX_CHARACTERS)
        == expected
    )


@pytest.mark.parametrize("content", ["The answer is", " Sure, \n", "im_end", "<", "hm\n\nhm "])
@pytest.mark.parametrize("name", ["chatml", "llama-3", "mistral"])
async def test_goes_on_from_the_last_message_as_transformers_does(
    start: Start, name: str, content: str
) -> None:
    template = templates.ALL[name]
    messages = [{"role": "user", "content": "a?"}, {"role": "assistant", "content": content}]
    (expected,), _ = render_jinja_template(
        [messages], chat_template=template, continue_final_message=True, **VARIABLES
    )
    conversation = ValidConversation(
        messages=messages, add_generation_prompt=False, continue_final_message=True
    )
    assert await (await start(template)).render(conversation, MAX_CHARACTERS) == expected


async def test_a_last_message_that_is_not_shown_as_it_is_cannot_be_gone_on_from(
    start: Start,
) -> None:
    conversation = ValidConversation(
        messages=[{"role": "assistant", "content": "Some text"}],
        add_generation_prompt=False,
        continue_final_message=True,
    )
    for shown in ("content | upper", "content | replace('Some', '')", "role"):
        template = await start(f"{{{{ messages[0].{shown} }}}}")
        with pytest.raises(InvalidArgument) as refusal:
            await template.render(conversation, MAX_CHARACTERS)
        assert refusal.value.field == "continue_final_message"


async def test_what_the_template_refuses_is_told(start: Start) -> None:
    template = await start(templates.MISTRAL)
    with pytest.raises(InvalidArgument, match="roles must alternate") as refusal:
        await template.render(
            ValidConversation(messages=[{"role": "assistant", "content": "a"}]), MAX_CHARACTERS
        )
    assert refusal.value.field == "messages"


async def test_today_can_be_asked_for(start: Start) -> None:
    template = await start("{{ strftime_now('%Y') | length }}")
    assert await template.render(ValidConversation(messages=[]), MAX_CHARACTERS) == "4"


LOOP = (
    "{% if messages[0].content == 'bomb' %}{% for i in range(9999) %}{% for j in range(9999) %}"
    "{% for k in range(9999) %}{% endfor %}{% endfor %}{% endfor %}{% endif %}{{ messages|length }}"
)
MEMORY = (
    "{% if messages[0].content == 'bomb' %}{% set s = 'x' * 10 ** 6 %}"
    "{% set s = s.replace('x', s) %}"
    "{% endif %}{{ messages|length }}"
)
OUTPUT = (
    "{% if messages[0].content == 'bomb' %}{% for i in range(20000) %}x{% endfor %}{% endif %}"
    "{{ messages|length }}"
)
FAULT = (
    "{% if messages[0].content == 'bomb' %}{{ messages[0].a.b.c }}{% endif %}{{ messages|length }}"
)
# Few steps, each long: only the clock can end it.
SLOW = (
    "{% set ns = namespace(s='ab') %}{% if messages[0].content == 'bomb' %}"
    "{% for i in range(24) %}{% set ns.s = ns.s + ns.s %}{% endfor %}"
    "{% for i in range(1000) %}{% set x = ns.s.replace('a', 'c') %}{% endfor %}{% endif %}"
    "{{ messages|length }}"
)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (LOOP, "takes too many steps for these messages"),
        # Whichever limit is met first on this machine.
        (MEMORY, "takes (more than 512 MiB|longer than 1 s) for these messages"),
        (OUTPUT, "the prompt would have 20001 characters; at most 10000 are taken"),
        (FAULT, "the chat template fails in line 1: "),
        (SLOW, "takes longer than 1 s for these messages"),
    ],
    ids=["loop", "memory", "output", "fault", "slow"],
)
async def test_a_bomb_fails_its_own_request_only(start: Start, template: str, message: str) -> None:
    chat_template = await start(template)
    good, bomb, other = await asyncio.gather(
        chat_template.render(
            ValidConversation(messages=[{"role": "user", "content": "fine"}]), MAX_CHARACTERS
        ),
        chat_template.render(
            ValidConversation(messages=[{"role": "user", "content": "bomb"}]), MAX_CHARACTERS
        ),
        chat_template.render(
            ValidConversation(messages=[{"role": "user", "content": "fine too"}]), MAX_CHARACTERS
        ),
        return_exceptions=True,
    )
    assert (good, other) == ("1", "1")
    assert isinstance(bomb, InvalidArgument)
    assert re.search(message, bomb.message)
    assert bomb.field == "messages"


async def test_a_client_that_leaves_does_not_shift_the_answers(start: Start) -> None:
    template = await start("{{ messages[0].content }}")

    def render(content: str) -> "asyncio.Task[str]":
        return asyncio.create_task(
            template.render(
                ValidConversation(messages=[{"role": "user", "content": content}]), MAX_CHARACTERS
            )
        )

    tasks = [render(str(number)) for number in range(20)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    assert await asyncio.gather(*tasks[1::2]) == [str(number) for number in range(1, 20, 2)]


async def test_modules_in_the_working_directory_are_left_alone(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "minijinja.py").write_text("raise SystemExit('not this one')")
    monkeypatch.chdir(tmp_path)
    template = await start("{{ messages[0].content }}")
    assert (
        await template.render(
            ValidConversation(messages=[{"role": "user", "content": "hi"}]), MAX_CHARACTERS
        )
        == "hi"
    )


async def test_a_template_that_cannot_be_parsed_stops_the_start(start: Start) -> None:
    with pytest.raises(StartupError, match=r"model: the chat template is wrong: .* \(line 2\)"):
        await start("\n{% if %}")
