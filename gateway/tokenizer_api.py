"""The routes that turn text to token ids and back, as the served model does it (vLLM's API)."""

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from octavo.errors import InvalidArgument
from octavo.v1.tokenizer_pb2 import Conversation, DetokenizeRequest, TokenizeRequest

from .json_body import decode_json
from .limits import read_body
from .openai_answers import Detokenized, Tokenized
from .openai_types import DetokenizeBody, TokenizeBody
from .router_client import RouterClient
from .router_requests import chat_message

_NOT_OFFERED: dict[str, object] = {
    # Field: the value, beside null, with which it changes nothing.
    "add_generation_prompt": True,
    "continue_final_message": False,
    "return_token_strs": False,
    "tools": [],
}


class TokenizerRoutes:
    """/tokenize and /detokenize."""

    def __init__(self, router: RouterClient) -> None:
        self._router = router
        self._tokenize_decoder = msgspec.json.Decoder(TokenizeBody)
        self._detokenize_decoder = msgspec.json.Decoder(DetokenizeBody)

    async def tokenize(self, request: Request) -> Response:
        raw = await read_body(request.scope, request.receive)
        body = decode_json(self._tokenize_decoder, raw)
        answer = await self._router.tokenize(_tokenize_request(body), request.scope["request_id"])
        token_ids = list(answer.token_ids)
        return _json(Tokenized(len(token_ids), answer.max_model_len, token_ids))

    async def detokenize(self, request: Request) -> Response:
        raw = await read_body(request.scope, request.receive)
        body = decode_json(self._detokenize_decoder, raw)
        wanted = DetokenizeRequest(model=body.model, token_ids=body.tokens)
        answer = await self._router.detokenize(wanted, request.scope["request_id"])
        return _json(Detokenized(answer.text))


def _tokenize_request(body: TokenizeBody) -> TokenizeRequest:
    for name, neutral in _NOT_OFFERED.items():
        if getattr(body, name) not in (None, neutral):
            raise InvalidArgument(f"{name} is not offered yet; leave it out.", field=name)
    if (body.prompt is None) == (body.messages is None):
        raise InvalidArgument("Send either prompt or messages.", field="prompt")
    request = TokenizeRequest(
        model=body.model, text=body.prompt, add_special_tokens=body.add_special_tokens
    )
    if body.messages is not None:
        messages = [chat_message(message, i) for i, message in enumerate(body.messages)]
        request.conversation.CopyFrom(Conversation(messages=messages))
    return request


def _json(answer: msgspec.Struct) -> Response:
    return Response(msgspec.json.encode(answer), media_type="application/json")
