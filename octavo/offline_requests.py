"""What the offline API asks of the router: prompts and conversations as requests of the gRPC API.

Messages and tools are those of the REST API, so its code reads them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from octavo.gateway.openai_types import Message as OpenAIMessage
from octavo.gateway.router_requests import chat_message
from octavo.gateway.tools import tools_json

from .errors import InvalidArgument
from .field_types import Uint32
from .sampling_params import SamplingParams
from .typed_value import typed
from .v1 import common_pb2, inference_pb2

Prompt = str | Sequence[int] | Mapping[str, Any]
"""Text, token ids, or {"prompt": text} or {"prompt_token_ids": ids}."""
Message = Mapping[str, Any]
"""{"role": ..., "content": text}, as in the REST API."""
Tool = Mapping[str, Any]
"""{"type": "function", "function": ...}, as in the REST API."""


def options_of_each(
    sampling_params: SamplingParams | Sequence[SamplingParams | None] | None, count: int
) -> list[inference_pb2.GenerationOptions]:
    """Return the options of `count` requests, of one for all or of one for each."""
    if sampling_params is None or isinstance(sampling_params, SamplingParams):
        sampling_params = [sampling_params] * count
    if len(sampling_params) != count:
        raise InvalidArgument(
            f"there are {len(sampling_params)} sampling_params for {count} prompts; give one"
            " for all or one for each",
            field="sampling_params",
        )
    return [_model_defaults() if each is None else each.to_options() for each in sampling_params]


def prompts_of(prompts: Prompt | Sequence[Prompt]) -> Sequence[Prompt]:
    """Return the prompts as a sequence; token ids on their own are one prompt."""
    if isinstance(prompts, str | Mapping) or (prompts and isinstance(prompts[0], int)):
        return [prompts]  # type: ignore[list-item]
    return prompts  # type: ignore[return-value]


def conversations_of(
    messages: Sequence[Message] | Sequence[Sequence[Message]],
) -> Sequence[Sequence[Message]]:
    """Return the conversations as a sequence; messages on their own are one conversation."""
    if messages and isinstance(messages[0], Mapping):
        return [messages]  # type: ignore[list-item]
    return messages  # type: ignore[return-value]


def generate_request(
    prompt: Prompt, options: inference_pb2.GenerationOptions
) -> inference_pb2.GenerateRequest:
    if isinstance(prompt, Mapping):
        if ("prompt" in prompt) == ("prompt_token_ids" in prompt):
            raise InvalidArgument(
                f'a prompt has the keys {sorted(prompt)}; give either "prompt" or'
                ' "prompt_token_ids"',
                field="prompt",
            )
        prompt = prompt["prompt"] if "prompt" in prompt else prompt["prompt_token_ids"]
    text_or_ids = typed(prompt, str | list[Uint32], "prompt")
    if isinstance(text_or_ids, str):
        return inference_pb2.GenerateRequest(options=options, text=text_or_ids)
    token_ids = common_pb2.TokenIds(ids=text_or_ids)
    return inference_pb2.GenerateRequest(options=options, token_ids=token_ids)


def chat_request(
    conversation: Sequence[Message],
    options: inference_pb2.GenerationOptions,
    *,
    add_generation_prompt: bool,
    continue_final_message: bool,
    tools: Sequence[Tool] | None,
) -> inference_pb2.ChatRequest:
    return inference_pb2.ChatRequest(
        options=options,
        messages=[
            chat_message(typed(message, OpenAIMessage, f"messages[{index}]"), index)
            for index, message in enumerate(conversation)
        ],
        add_generation_prompt=add_generation_prompt,
        continue_final_message=continue_final_message,
        tools_json=tools_json(typed(tools, list[dict[str, Any]] | None, "tools")),
    )


def _model_defaults() -> inference_pb2.GenerationOptions:
    """Leave to the model what SamplingParams would say, but for the length."""
    stop = common_pb2.StopConditions(max_tokens=SamplingParams().max_tokens)
    return inference_pb2.GenerationOptions(n=1, stop=stop)
