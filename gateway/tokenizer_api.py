"""The routes that turn text to token ids and back, as the served model does it (vLLM's API)."""

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from octavo.errors import InvalidArgument
from octavo.v1.tokenizer_pb2 import Conversation, DetokenizeRequest, TokenizeRequest

from .json_body import decode_json
from .limits import read_body
from .not_offered import TOKENIZE_NOT_OFFERED, refuse_not_offered, with_not_offered
from .openai_answers import Detokenized, Tokenized
from .openai_types import DetokenizeBody, TokenizeBody
from .router_client import RouterClient
from .router_requests import chat_message
from .tools import tools_json


class TokenizerRoutes:
    """/tokenize and /detokenize."""

    def __init__(self, router: RouterClient) -> None:
        self._router = router
        self._tokenize_decoder = msgspec.json.Decoder(
            with_not_offered(TokenizeBody, TOKENIZE_NOT_OFFERED)
        )
        self._detokenize_decoder = msgspec.json.Decoder(DetokenizeBody)

    async def tokenize(self, request: Request) -> Response:
        raw = await read_body(request.scope, request.receive)
        body = decode_json(self._tokenize_decoder, raw)
        refuse_not_offered(body, TOKENIZE_NOT_OFFERED)
        answer = await self._router.tokenize(_tokenize_request(body), request.scope["request_id"])
        token_ids = list(answer.token_ids)
        token_strs = list(answer.token_strs) if body.return_token_strs else None
        return _json(Tokenized(len(token_ids), answer.max_model_len, token_ids, token_strs))

    async def detokenize(self, request: Request) -> Response:
        raw = await read_body(request.scope, request.receive)
        body = decode_json(self._detokenize_decoder, raw)
        wanted = DetokenizeRequest(model=body.model or "", token_ids=body.tokens)
        answer = await self._router.detokenize(wanted, request.scope["request_id"])
        return _json(Detokenized(answer.text))


def _tokenize_request(body: TokenizeBody) -> TokenizeRequest:
    if (body.prompt is None) == (body.messages is None):
        raise InvalidArgument("Send either prompt or messages.", field="prompt")
    request = TokenizeRequest(
        model=body.model or "",
        text=body.prompt,
        add_special_tokens=body.add_special_tokens,
        return_token_strs=bool(body.return_token_strs),
    )
    if body.messages is not None:
        conversation = Conversation(
            messages=[chat_message(message, i) for i, message in enumerate(body.messages)],
            add_generation_prompt=body.add_generation_prompt,
            continue_final_message=bool(body.continue_final_message),
            tools_json=tools_json(body.tools),
        )
        request.conversation.CopyFrom(conversation)
    return request


def _json(answer: msgspec.Struct) -> Response:
    return Response(msgspec.json.encode(answer), media_type="application/json")
