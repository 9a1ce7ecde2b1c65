"""What the gateway asks of the router: OpenAI bodies as requests of the public gRPC API."""

from octavo.errors import InvalidArgument
from octavo.v1.common_pb2 import SamplingParams, StopConditions, TokenIds
from octavo.v1.inference_pb2 import (
    ChatMessage,
    ChatRequest,
    GenerateRequest,
    GenerationOptions,
)

from .limits import MAX_OUTPUTS, MAX_PROMPT_LOGPROBS, MAX_PROMPTS, MAX_TOP_LOGPROBS
from .openai_types import ChatBody, CompletionBody, ContentPart, GenerationBody, Message
from .tools import check_tool_choice, tools_json

_COMPLETION_MAX_TOKENS = 16
"""OpenAI's default for /v1/completions; chats run to the end of the context."""
_UINT64_MASK = 2**64 - 1


def chat_requests(body: ChatBody, request_id: str) -> list[ChatRequest]:
    """Return the one request that a chat body stands for."""
    max_tokens = body.max_completion_tokens
    if max_tokens is None:
        max_tokens = body.max_tokens
    if body.echo:
        raise InvalidArgument("echo is not offered for chats yet; leave it out.", field="echo")
    check_tool_choice(body.tool_choice)
    options = _options(body, request_id, max_tokens, logprobs=_chat_logprobs(body))
    request = ChatRequest(
        options=options,
        messages=[chat_message(message, i) for i, message in enumerate(body.messages)],
        add_generation_prompt=body.add_generation_prompt,
        continue_final_message=bool(body.continue_final_message),
        tools_json=tools_json(body.tools),
    )
    return [request]


def completion_requests(body: CompletionBody, request_id: str) -> list[GenerateRequest]:
    """Return a request for each prompt of a completions body, in order."""
    max_tokens = _COMPLETION_MAX_TOKENS if body.max_tokens is None else body.max_tokens
    options = _options(body, request_id, max_tokens, logprobs=body.logprobs)
    if body.echo and body.logprobs is not None and body.prompt_logprobs is None:
        _check_echoed_logprobs(body.logprobs)
        options.prompt_logprobs = body.logprobs
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


def _options(
    body: GenerationBody, request_id: str, max_tokens: int | None, *, logprobs: int | None
) -> GenerationOptions:
    if body.prompt_logprobs is not None and body.stream:
        raise InvalidArgument(
            "prompt_logprobs is not for streams; set stream to false or leave it out.",
            field="prompt_logprobs",
        )
    return GenerationOptions(
        model=body.model or "",
        sampling=_sampling(body),
        stop=_stop_conditions(body, max_tokens),
        n=body.n,
        seed=None if body.seed in (None, -1) else body.seed & _UINT64_MASK,
        priority=body.priority or 0,
        request_id=request_id,
        return_token_ids=bool(body.return_token_ids),
        logprobs=logprobs,
        prompt_logprobs=body.prompt_logprobs,
        bad_words=body.bad_words,
        skip_special_tokens=body.skip_special_tokens,
        truncate_prompt_tokens=body.truncate_prompt_tokens,
        cache_salt=body.cache_salt or "",
        echo=bool(body.echo),
    )


def _sampling(body: GenerationBody) -> SamplingParams:
    if body.allowed_token_ids == []:
        raise InvalidArgument(
            "allowed_token_ids is empty, so no token could be drawn; leave it out to allow all.",
            field="allowed_token_ids",
        )
    logit_bias = body.logit_bias or {}
    return SamplingParams(
        temperature=body.temperature,
        top_p=body.top_p,
        top_k=0 if body.top_k == -1 else body.top_k,
        min_p=body.min_p,
        presence_penalty=body.presence_penalty,
        frequency_penalty=body.frequency_penalty,
        repetition_penalty=body.repetition_penalty,
        logit_bias_token_ids=logit_bias.keys(),
        logit_bias_values=logit_bias.values(),
        allowed_token_ids=body.allowed_token_ids,
    )


def _stop_conditions(body: GenerationBody, max_tokens: int | None) -> StopConditions:
    return StopConditions(
        max_tokens=max_tokens,
        stop=[body.stop] if isinstance(body.stop, str) else body.stop,
        stop_token_ids=body.stop_token_ids,
        ignore_eos=bool(body.ignore_eos),
        min_tokens=body.min_tokens or 0,
        include_stop_str_in_output=bool(body.include_stop_str_in_output),
    )


def _chat_logprobs(body: ChatBody) -> int | None:
    """Return how many log-probabilities a chat wants beside each token's own; None: no own."""
    top_logprobs = body.top_logprobs or 0
    if top_logprobs > MAX_TOP_LOGPROBS:
        raise InvalidArgument(
            f"top_logprobs is {top_logprobs}; it must be at most {MAX_TOP_LOGPROBS}.",
            field="top_logprobs",
        )
    if body.logprobs:
        return top_logprobs
    if top_logprobs:
        raise InvalidArgument(
            "top_logprobs is only for answers with logprobs; set logprobs to true or leave it out.",
            field="top_logprobs",
        )
    return None


def _check_echoed_logprobs(logprobs: int) -> None:
    if logprobs > MAX_PROMPT_LOGPROBS:
        raise InvalidArgument(
            f"logprobs is {logprobs}; with echo, which asks for the prompt's too, it must be at"
            f" most {MAX_PROMPT_LOGPROBS}.",
            field="logprobs",
        )


def chat_message(message: Message, index: int) -> ChatMessage:
    """Return the message, the `index`th of its conversation, as the router takes it."""
    _refuse_tool_calls(message, index)
    role = "system" if message.role == "developer" else message.role
    content = message.content
    if isinstance(content, list):
        # As vLLM, for templates that take strings.
        content = "\n".join(_part_text(part, index, k) for k, part in enumerate(content))
    elif content is None:
        # What clients send back for an answer that had no text.
        if role != "assistant":
            field = f"messages[{index}].content"
            raise InvalidArgument(f"{field} is missing; it holds the message's text.", field=field)
        content = ""
    return ChatMessage(role=role, content=content, name=message.name or "")


def _refuse_tool_calls(message: Message, index: int) -> None:
    """Raise InvalidArgument for a call of a tool; the router refuses the tool's answer."""
    for name in ("tool_calls", "tool_call_id", "function_call"):
        if getattr(message, name):
            field = f"messages[{index}].{name}"
            raise InvalidArgument(f"{field} is not offered yet; leave it out.", field=field)


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
