"""Renders conversations with a model's chat template, in a helper process that can be killed."""

import asyncio
import contextlib
import json
import secrets
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import structlog

from octavo.errors import InvalidArgument
from octavo.startup import StartupError

from .model_text import TemplateSource
from .prompt_validation import ValidConversation
from .template_helper import LENGTH, MAX_MEMORY_BYTES

RENDER_TIMEOUT_S = 1.0
_START_TIMEOUT_S = 10.0

log = structlog.get_logger()


class ChatTemplate:
    """The chat template of one model. One conversation is rendered at a time."""

    def __init__(self, source: TemplateSource) -> None:
        self._source = source
        self._helper: _Helper | None = None
        self._turn = asyncio.Lock()

    async def start(self) -> None:
        """Start the helper; raises StartupError if the template cannot be parsed."""
        self._helper = await _Helper.start(self._source)

    async def close(self) -> None:
        async with self._turn:
            await self._drop_helper()

    async def render(self, conversation: ValidConversation, max_characters: int) -> str:
        """Return the prompt, up to where the model is to go on.

        Raises:
            InvalidArgument: the template refuses the messages, or takes too much for them.
        """
        # Its space tells whether the template keeps those at the end of a message.
        mark = f"{secrets.token_hex(8)} " if conversation.continue_final_message else ""
        request = {
            "messages": _marked(conversation.messages, mark),
            "tools": conversation.tools,
            "add_generation_prompt": conversation.add_generation_prompt,
            "max_characters": max_characters + len(mark),
        }
        # Shielded: an answer that nobody waits for would be taken for the next one's.
        answer = await asyncio.shield(self._exchange(request))
        if "error" in answer:
            raise InvalidArgument(answer["error"], field="messages")
        if mark:
            return _cut_at(mark, answer["text"], conversation.messages[-1]["content"])
        return answer["text"]

    async def _exchange(self, request: Mapping[str, Any]) -> dict[str, str]:
        async with self._turn:
            if self._helper is None:
                await self.start()
            assert self._helper is not None
            try:
                return await self._helper.ask(request, RENDER_TIMEOUT_S)
            except TimeoutError:
                reason = f"the chat template takes longer than {RENDER_TIMEOUT_S:g} s"
            except (EOFError, OSError):
                reason = f"the chat template takes more than {MAX_MEMORY_BYTES >> 20} MiB"
            log.warning("chat template helper ended", reason=reason)
            await self._drop_helper()
            return {"error": f"{reason} for these messages"}

    async def _drop_helper(self) -> None:
        if self._helper is not None:
            await self._helper.kill()
            self._helper = None


class _Helper:
    """One helper process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, source: TemplateSource) -> "_Helper":
        helper = cls(
            await asyncio.create_subprocess_exec(
                # -P: no module is taken from the directory that the router was started in.
                *(sys.executable, "-P", "-m", "octavo.router.template_helper"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                # It may quote the conversation.
                stderr=asyncio.subprocess.DEVNULL,
            )
        )
        setup = {"template": source.text, "variables": source.variables}
        try:
            answer = await helper.ask(setup, _START_TIMEOUT_S)
        except (TimeoutError, EOFError, OSError) as error:
            await helper.kill()
            raise StartupError(f"{source.origin}: the chat template cannot be compiled") from error
        if "error" in answer:
            await helper.kill()
            raise StartupError(f"{source.origin}: the chat template is wrong: {answer['error']}")
        return helper

    async def ask(self, request: Mapping[str, Any], timeout_s: float) -> dict[str, str]:
        """Return the answer; raises TimeoutError, or EOFError or OSError if the process died."""
        requests, answers = self._process.stdin, self._process.stdout
        assert requests is not None and answers is not None
        payload = json.dumps(request).encode()
        async with asyncio.timeout(timeout_s):
            requests.write(LENGTH.pack(len(payload)) + payload)
            await requests.drain()
            (size,) = LENGTH.unpack(await answers.readexactly(LENGTH.size))
            answer: dict[str, str] = json.loads(await answers.readexactly(size))
        return answer

    async def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()


def _marked(messages: Sequence[Mapping[str, str]], mark: str) -> list[Mapping[str, str]]:
    """Return the messages with a mark at the end of the last."""
    if not mark:
        return list(messages)
    return [*messages[:-1], {**messages[-1], "content": messages[-1]["content"] + mark}]


def _cut_at(mark: str, prompt: str, content: str) -> str:
    """Return the prompt without the mark and what the template writes after it (as transformers).

    The last message's own text would not do: it may be part of what comes after it.
    """
    before, found, after = prompt.rpartition(mark.rstrip())
    if not found or not before.rstrip().endswith(content.strip()):
        raise InvalidArgument(
            "continue_final_message: the chat template does not show the last message as it is, so"
            " it cannot be gone on from; leave it out",
            field="continue_final_message",
        )
    # Many templates trim the messages.
    return before if after.startswith(" ") else before.rstrip()
