"""An answer in one piece: gathers the events of all outputs and makes the JSON body of them."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec
from msgspec import UNSET

from octavo.v1 import common_pb2
from octavo.v1.inference_pb2 import Delta, Finished, PromptLogprobsEvent, TokenText

from .answer import AnswerStyle, UsageTotal, finish_reason, new_identity, stop_reason
from .logprobs import CompletionLogprobsWriter, chat_logprobs, prompt_logprobs
from .openai_answers import (
    ChatAnswer,
    ChatChoice,
    ChatMessage,
    CompletionAnswer,
    CompletionChoice,
    CompletionLogprobs,
    PromptLogprobs,
)
from .openai_types import GenerationBody
from .router_client import RouterStream
from .router_requests import num_outputs


@dataclass(slots=True)
class _Output:
    """What has arrived of one output."""

    texts: list[str] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[TokenText] = field(default_factory=list)
    finished: Finished = field(default_factory=Finished)


class CollectedAnswer:
    """An AnswerSink that keeps everything."""

    def __init__(
        self, style: AnswerStyle, body: GenerationBody, streams: Sequence[RouterStream]
    ) -> None:
        self._style = style
        self._body = body
        self._started = [stream.started for stream in streams]
        self._outputs = [_Output() for _ in range(len(streams) * num_outputs(body))]
        self._prompt_logprobs: list[list[TokenText]] = [[] for _ in streams]
        self._usage = UsageTotal()

    async def prompt_logprobs(self, prompt: int, event: PromptLogprobsEvent) -> None:
        self._prompt_logprobs[prompt].extend(event.positions)

    async def text(self, choice: int, text: str, num_tokens: int) -> None:
        self._outputs[choice].texts.append(text)

    async def delta(self, choice: int, delta: Delta) -> None:
        output = self._outputs[choice]
        output.texts.append(delta.text)
        output.token_ids.extend(delta.token_ids)
        output.logprobs.extend(delta.logprobs)

    async def finished(self, choice: int, finished: Finished) -> None:
        self._outputs[choice].finished = finished

    def usage(self, usage: common_pb2.Usage) -> None:
        self._usage.add(usage)

    def to_json(self) -> bytes:
        answer = self._chat_answer() if self._style.is_chat else self._completion_answer()
        return msgspec.json.encode(answer)

    def _chat_answer(self) -> ChatAnswer:
        identity = new_identity(self._style, self._started[0].model)
        choices = [
            ChatChoice(
                index=i,
                message=ChatMessage("assistant", "".join(output.texts)),
                finish_reason=finish_reason(output.finished),
                stop_reason=stop_reason(output.finished, self._body),
                logprobs=chat_logprobs(output.logprobs) if self._body.logprobs else None,
                token_ids=output.token_ids if self._body.return_token_ids else UNSET,
            )
            for i, output in enumerate(self._outputs)
        ]
        return ChatAnswer(
            id=identity.id,
            object=self._style.object,
            created=identity.created,
            model=identity.model,
            choices=choices,
            usage=self._usage.to_json(),
            prompt_token_ids=self._prompt_token_ids(0),
            prompt_logprobs=self._asked_prompt_logprobs(0),
        )

    def _completion_answer(self) -> CompletionAnswer:
        identity = new_identity(self._style, self._started[0].model)
        n = num_outputs(self._body)
        choices = [
            CompletionChoice(
                index=i,
                text="".join(output.texts),
                finish_reason=finish_reason(output.finished),
                stop_reason=stop_reason(output.finished, self._body),
                logprobs=self._completion_logprobs(i // n, output),
                prompt_logprobs=self._asked_prompt_logprobs(i // n),
                prompt_token_ids=self._prompt_token_ids(i // n),
                token_ids=output.token_ids if self._body.return_token_ids else UNSET,
            )
            for i, output in enumerate(self._outputs)
        ]
        return CompletionAnswer(
            id=identity.id,
            object=self._style.object,
            created=identity.created,
            model=identity.model,
            choices=choices,
            usage=self._usage.to_json(),
        )

    def _prompt_token_ids(self, prompt: int) -> list[int] | msgspec.UnsetType:
        if not self._body.return_token_ids:
            return UNSET
        return list(self._started[prompt].prompt_token_ids)

    def _completion_logprobs(self, prompt: int, output: _Output) -> CompletionLogprobs | None:
        if self._body.logprobs is None:
            return None
        echoed = self._prompt_logprobs[prompt] if self._body.echo else []
        return CompletionLogprobsWriter().write([*echoed, *output.logprobs])

    def _asked_prompt_logprobs(self, prompt: int) -> PromptLogprobs | msgspec.UnsetType:
        if self._body.prompt_logprobs is None:
            return UNSET
        return prompt_logprobs(self._prompt_logprobs[prompt])
