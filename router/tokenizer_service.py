"""The Tokenizer service: text ⇄ token ids, as the served model does it."""

import asyncio
from typing import Any

from octavo.v1 import tokenizer_pb2, tokenizer_pb2_grpc

from .checks import check_token_ids
from .engine_catalog import EngineCatalog
from .prompt_validation import check_text_bytes, validate_conversation


class TokenizerServicer(tokenizer_pb2_grpc.TokenizerServicer):
    """Needs no scheduler once the model is known. Errors name the fields as REST clients do."""

    def __init__(self, catalog: EngineCatalog) -> None:
        self._catalog = catalog

    async def Tokenize(
        self, request: tokenizer_pb2.TokenizeRequest, context: Any
    ) -> tokenizer_pb2.TokenizeResponse:
        model = self._catalog.find(request.model).model
        if request.WhichOneof("input") == "conversation":
            text = await model.render(validate_conversation(request.conversation, model.info))
            add_special_tokens = False
        else:
            text = request.text
            check_text_bytes(len(text.encode()), "prompt", model.info)
            add_special_tokens = True
        if request.HasField("add_special_tokens"):
            add_special_tokens = request.add_special_tokens
        token_ids = await asyncio.to_thread(
            model.tokenizer.encode, text, add_special_tokens=add_special_tokens
        )
        return tokenizer_pb2.TokenizeResponse(
            token_ids=token_ids,
            max_model_len=model.info.max_model_len,
            token_strs=(
                map(model.tokenizer.spelling_of, token_ids) if request.return_token_strs else ()
            ),
        )

    async def Detokenize(
        self, request: tokenizer_pb2.DetokenizeRequest, context: Any
    ) -> tokenizer_pb2.DetokenizeResponse:
        model = self._catalog.find(request.model).model
        check_token_ids(request.token_ids, "tokens", model.info.vocab_size)
        text = await asyncio.to_thread(
            # All of it: who asks wants to see what a prompt consists of (as vLLM).
            model.tokenizer.decode,
            list(request.token_ids),
            skip_special_tokens=False,
        )
        return tokenizer_pb2.DetokenizeResponse(text=text)
