"""What the gateway asks of the router: OpenAI bodies as requests of the public gRPC API."""

from octavo.errors import InvalidArgument
from octavo.v1.common_pb2 import SamplingParams, StopConditions, TokenIds
from octavo.v1.inference_pb2 import (
    ChatMessage,
    ChatRequest,
    GenerateRequest,
    GenerationOptions,
)

from .limits import MAX_OUTPUTS, MAX_PROMPTS
from .openai_types import ChatBody, CompletionBody, ContentPart, GenerationBody, Message

_COMPLETION_MAX_TOKENS = 16
"""OpenAI's default for /v1/completions; chats run to the end of the context."""
_UINT64_MASK = 2**64 - 1


def chat_requests(body: ChatBody, request_id: str) -> list[ChatRequest]:
    """Return the one request that a chat body stands for."""
    max_tokens = body.max_completion_tokens
    options = _options(body, request_id, body.max_tokens if max_tokens is None else max_tokens)
    messages = [_message(message, i) for i, message in enumerate(body.messages)]
    return [ChatRequest(options=options, messages=messages)]


def completion_requests(body: CompletionBody, request_id: str) -> list[GenerateRequest]:
    """Return a request for each prompt of a completions body, in order."""
    max_tokens = _COMPLETION_MAX_TOKENS if body.max_tokens is None else body.max_tokens
    options = _options(body, request_id, max_tokens)
    requests = [_generate_request(options, prompt) for prompt in _prompts(body.prompt)]
    if len(requests) > MAX_PROMPTS:
        raise InvalidArgument(
            f"prompt has {len(requests)} prompts, at most {MAX_PROMPTS} go in one request;"
            " send the others in another.",
            field="prompt",
        )
    if len(requests) > 1 and len(requests) * num_outputs(body) > MAX_OUTPUTS:
        raise InvalidArgument(
            f"{len(requests)} prompts with n = {num_outputs(body)} are more than {MAX_OUTPUTS}"
            " outputs; send fewer prompts at once.",
            field="n",
        )
    return requests


def num_outputs(body: GenerationBody) -> int:
    """Return the number of outputs of each prompt."""
    return 1 if body.n is None else body.n


def _options(body: GenerationBody, request_id: str, max_tokens: int | None) -> GenerationOptions:
    return GenerationOptions(
        model=body.model,
        sampling=SamplingParams(
            temperature=body.temperature,
            top_p=body.top_p,
            top_k=0 if body.top_k == -1 else body.top_k,
        ),
        stop=StopConditions(
            max_tokens=max_tokens,
            stop=[body.stop] if isinstance(body.stop, str) else body.stop,
            stop_token_ids=body.stop_token_ids,
            ignore_eos=bool(body.ignore_eos),
        ),
        n=body.n,
        seed=None if body.seed in (None, -1) else body.seed & _UINT64_MASK,
        priority=body.priority or 0,
        request_id=request_id,
        return_token_ids=bool(body.return_token_ids),
    )


def _message(message: Message, index: int) -> ChatMessage:
    if message.tool_calls:
        field = f"messages[{index}].tool_calls"
        raise InvalidArgument(f"{field} is not offered yet; leave it out.", field=field)
    role = "system" if message.role == "developer" else message.role
    content = message.content
    if isinstance(content, list):
        content = "".join(_part_text(part, index, k) for k, part in enumerate(content))
    elif content is None:
        # What clients send back for an answer that had no text.
        if role != "assistant":
            field = f"messages[{index}].content"
            raise InvalidArgument(f"{field} is missing; it holds the message's text.", field=field)
        content = ""
    return ChatMessage(role=role, content=content)


def _part_text(part: ContentPart, message_index: int, part_index: int) -> str:
    field = f"messages[{message_index}].content[{part_index}]"
    if part.type != "text":
        raise InvalidArgument(
            f"{field} has type {part.type!r}, which is not offered yet; send parts of type 'text'.",
            field=f"{field}.type",
        )
    if part.text is None:
        raise InvalidArgument(f"{field}.text is missing.", field=f"{field}.text")
    return part.text


def _prompts(prompt: str | list[str | int | list[int]]) -> list[str | list[int]]:
    """Return the prompts of the four forms that `prompt` comes in."""
    if isinstance(prompt, str):
        return [prompt]
    kinds = set(map(type, prompt))
    if kinds == {int}:
        return [prompt]  # type: ignore[list-item]
    if kinds in ({str}, {list}):
        return prompt  # type: ignore[return-value]
    if kinds:
        raise InvalidArgument(
            "prompt mixes texts and token ids; send one text, a list of texts, a list of token"
            " ids, or a list of such lists.",
            field="prompt",
        )
    raise InvalidArgument("prompt is empty; send at least one prompt.", field="prompt")


def _generate_request(options: GenerationOptions, prompt: str | list[int]) -> GenerateRequest:
    if isinstance(prompt, str):
        return GenerateRequest(options=options, text=prompt)
    return GenerateRequest(options=options, token_ids=TokenIds(ids=prompt))
