"""A router without a scheduler: the real gRPC services, answering from a script."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import grpc

from octavo.errors import NotFound, RequestError, abort
from octavo.grpc_server import Health, grpc_server
from octavo.v1.common_pb2 import FinishReason, PositionLogprobs, TokenLogprob, Usage
from octavo.v1.inference_pb2 import (
    ChatRequest,
    Delta,
    Finished,
    GenerateRequest,
    PromptLogprobsEvent,
    Started,
    StreamEvent,
    TokenText,
)
from octavo.v1.inference_pb2_grpc import InferenceServicer, add_InferenceServicer_to_server
from octavo.v1.models_pb2 import (
    GetModelRequest,
    GetModelResponse,
    ListModelsRequest,
    ListModelsResponse,
    Model,
)
from octavo.v1.models_pb2_grpc import ModelsServicer, add_ModelsServicer_to_server
from octavo.v1.tokenizer_pb2 import (
    DetokenizeRequest,
    DetokenizeResponse,
    TokenizeRequest,
    TokenizeResponse,
)
from octavo.v1.tokenizer_pb2_grpc import TokenizerServicer, add_TokenizerServicer_to_server

Request = ChatRequest | GenerateRequest
Script = Callable[[Request], AsyncIterator[StreamEvent]]

MODEL = "org/tiny"
PIECES = ("Hel", "lo", ' "wörld"\n\u2028€')
"""What every output says, if the script is `answer`: text that JSON and SSE have to escape."""
TEXT = "".join(PIECES)
TOKEN_IDS = [10, 11, 12]
PROMPT_TOKEN_IDS = [1, 2, 3, 4]
PROMPT_TOKEN_STRS = ["Pro", "m", "ö", "pt"]
STOP_TOKEN_ID = 12


def started() -> StreamEvent:
    return StreamEvent(
        started=Started(
            request_id="label",
            model=MODEL,
            num_prompt_tokens=len(PROMPT_TOKEN_IDS),
            prompt_token_ids=PROMPT_TOKEN_IDS,
        )
    )


def delta(output_index: int, position: int) -> StreamEvent:
    """Return the piece at `position` of the output."""
    return StreamEvent(
        delta=Delta(
            output_index=output_index,
            position=position,
            text=PIECES[position],
            token_ids=[TOKEN_IDS[position]],
            num_tokens=1,
        )
    )


def finished(output_index: int = 0) -> StreamEvent:
    return StreamEvent(
        finished=Finished(
            output_index=output_index,
            reason=FinishReason.FINISH_REASON_STOP,
            stop_token_id=STOP_TOKEN_ID,
        )
    )


def usage(num_outputs: int = 1) -> StreamEvent:
    return StreamEvent(
        usage=Usage(
            num_prompt_tokens=len(PROMPT_TOKEN_IDS),
            num_cached_tokens=2,
            num_output_tokens=num_outputs * len(TOKEN_IDS),
        )
    )


def token_text(token_id: int, texts: list[bytes]) -> TokenText:
    """Return a token that is second best, and as many better and worse ones as there are texts."""
    chosen = TokenLogprob(token_id=token_id, logprob=-1.5, rank=2)
    top = [
        TokenLogprob(token_id=100 + i, logprob=-1.0 - i / 2, rank=i + 1)
        for i in range(len(texts) - 1)
    ]
    return TokenText(logprobs=PositionLogprobs(chosen=chosen, top=top), texts=texts)


def output_logprobs(position: int, num_top: int) -> TokenText:
    """The most probable candidate is a text, the next one half a character."""
    texts = [PIECES[position].encode(), b" best", b"\xe2\x82"][: 1 + num_top]
    return token_text(TOKEN_IDS[position], texts)


def prompt_logprobs(num_top: int) -> StreamEvent:
    positions = [TokenText(texts=[b"Pro"])]
    for token_id, text in zip(PROMPT_TOKEN_IDS[1:], (b"m\xc3", b"\xb6", b"pt"), strict=True):
        positions.append(token_text(token_id, [text, b" best", b" next"][: 1 + num_top]))
    return StreamEvent(prompt_logprobs=PromptLogprobsEvent(positions=positions))


async def answer(request: Request) -> AsyncIterator[StreamEvent]:
    """Answer with PIECES in each of the n outputs, taking turns."""
    n = request.options.n or 1
    yield started()
    if request.options.HasField("prompt_logprobs"):
        yield prompt_logprobs(request.options.prompt_logprobs)
    for position in range(len(PIECES)):
        for output_index in range(n):
            event = delta(output_index, position)
            if not request.options.return_token_ids:
                del event.delta.token_ids[:]
            if request.options.HasField("logprobs"):
                event.delta.logprobs.append(output_logprobs(position, request.options.logprobs))
            yield event
    for output_index in range(n):
        yield finished(output_index)
    yield usage(n)


async def start_and_hang(request: Request) -> AsyncIterator[StreamEvent]:
    yield started()
    yield delta(0, 0)
    await asyncio.Event().wait()


async def hang(request: Request) -> AsyncIterator[StreamEvent]:
    await asyncio.Event().wait()
    yield started()


def fail_with(error: Exception) -> Script:
    """Return a script that fails before the first event."""

    async def script(request: Request) -> AsyncIterator[StreamEvent]:
        raise error
        yield started()

    return script


def start_and_fail_with(error: Exception) -> Script:
    async def script(request: Request) -> AsyncIterator[StreamEvent]:
        yield started()
        yield delta(0, 0)
        raise error

    return script


class BareStatus(Exception):
    """Raised by a script: a status without details, such as gRPC itself makes up."""

    def __init__(self, code: grpc.StatusCode, text: str) -> None:
        super().__init__(text)
        self.code = code


class FakeRouter(InferenceServicer, ModelsServicer, TokenizerServicer):
    """Runs `script` for every generation.

    Attributes:
        requests: all generations that arrived, in order.
        tokenizations: all requests to tokenize.
        request_ids: their x-request-id metadata.
        peers: the connections they came over.
        authorizations: what generations and questions for the models were made with.
        num_running: generations under way.
        arrived: each generation, when it begins.
        cancelled: each generation that its caller ended.
    """

    def __init__(self) -> None:
        self.script: Script = answer
        self.models = [Model(id=MODEL, created_s=1700000000, max_model_len=8192, root="tiny")]
        self.requests: list[Request] = []
        self.tokenizations: list[TokenizeRequest] = []
        self.request_ids: list[str] = []
        self.peers: list[str] = []
        self.authorizations: list[str] = []
        self.num_running = 0
        self.arrived: asyncio.Queue[Request] = asyncio.Queue()
        self.cancelled: asyncio.Queue[Request] = asyncio.Queue()
        self.health: Health

    @contextlib.asynccontextmanager
    async def serving(self, address: str) -> AsyncIterator[None]:
        services = {
            "octavo.v1.Inference": lambda server: add_InferenceServicer_to_server(self, server),
            "octavo.v1.Models": lambda server: add_ModelsServicer_to_server(self, server),
            "octavo.v1.Tokenizer": lambda server: add_TokenizerServicer_to_server(self, server),
        }
        async with grpc_server(address, services, grace_s=0) as process_health:
            self.health = process_health
            await process_health.set_serving(True)
            yield

    # Coroutines that write, not generators: a generator is not told if its call ends while it
    # waits at a yield.
    async def Chat(self, request: ChatRequest, context: grpc.aio.ServicerContext) -> None:
        await self._run(request, context)

    async def Generate(self, request: GenerateRequest, context: grpc.aio.ServicerContext) -> None:
        await self._run(request, context)

    async def _run(self, request: Request, context: grpc.aio.ServicerContext) -> None:
        self.requests.append(request)
        self.request_ids += [
            value for key, value in context.invocation_metadata() if key == "x-request-id"
        ]
        self.peers.append(context.peer())
        self._note_authorization(context)
        self.num_running += 1
        self.arrived.put_nowait(request)
        is_cut = True
        try:
            async for event in self.script(request):
                await context.write(event)
            is_cut = False
        except RequestError as error:
            is_cut = False
            await abort(context, error)
        except BareStatus as error:
            is_cut = False
            await context.abort(error.code, str(error))
        finally:
            # gRPC cancels a handler that waits, and fails the write of one that does not.
            if is_cut:
                self.cancelled.put_nowait(request)
            self.num_running -= 1

    def _note_authorization(self, context: grpc.aio.ServicerContext) -> None:
        metadata = dict(context.invocation_metadata() or ())
        self.authorizations.append(str(metadata.get("authorization", "")))

    async def ListModels(
        self, request: ListModelsRequest, context: grpc.aio.ServicerContext
    ) -> ListModelsResponse:
        self._note_authorization(context)
        return ListModelsResponse(models=self.models)

    async def GetModel(
        self, request: GetModelRequest, context: grpc.aio.ServicerContext
    ) -> GetModelResponse:
        for model in self.models:
            if model.id == request.model:
                return GetModelResponse(model=model)
        message = f"Model {request.model} is not served; this server has {MODEL}."
        await abort(context, NotFound(message, field="model"))
        raise AssertionError("abort raises")

    async def Tokenize(
        self, request: TokenizeRequest, context: grpc.aio.ServicerContext
    ) -> TokenizeResponse:
        self.tokenizations.append(request)
        return TokenizeResponse(
            token_ids=PROMPT_TOKEN_IDS,
            max_model_len=8192,
            token_strs=PROMPT_TOKEN_STRS if request.return_token_strs else (),
        )

    async def Detokenize(
        self, request: DetokenizeRequest, context: grpc.aio.ServicerContext
    ) -> DetokenizeResponse:
        return DetokenizeResponse(text=" ".join(map(str, request.token_ids)))
