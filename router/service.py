"""The Inference service: validate → encode → submit → decode → stream."""

import secrets
import time
from typing import Any

from octavo.errors import DeadlineExceeded, Unsupported
from octavo.v1 import common_pb2, inference_pb2, inference_pb2_grpc, scheduling_pb2

from .calls import relay_key, request_id, tenant
from .engine import Engine
from .engine_catalog import EngineCatalog
from .event_writer import EventWriter
from .metrics import RouterMetrics
from .open_requests import OpenRequests
from .output_stream import OutputStream
from .output_text import OutputText
from .prompt_validation import validate_chat, validate_prompt_text, validate_prompt_token_ids
from .relay import RelayedCall, Relays
from .replicas import Replicas
from .scheduler_client import NotSubmitted
from .served_model import EncodedPrompt, ServedModel
from .stop_strings import StopStringAutomaton, StopStringMatcher
from .validation import ValidOptions, validate_options

STALL_TIMEOUT_S = 30.0


class InferenceServicer(inference_pb2_grpc.InferenceServicer):
    """Generate and Chat; what a call raises becomes its status in CallInterceptor."""

    def __init__(
        self,
        catalog: EngineCatalog,
        open_requests: OpenRequests,
        metrics: RouterMetrics,
        relays: Relays,
        *,
        stall_timeout_s: float = STALL_TIMEOUT_S,
    ) -> None:
        """`stall_timeout_s`: how long a client may not read before it is given up."""
        self._relays = relays
        self._catalog = catalog
        self._open_requests = open_requests
        self._metrics = metrics
        self._stall_timeout_s = stall_timeout_s

    async def Generate(self, request: inference_pb2.GenerateRequest, context: Any) -> None:
        arrived_s = time.monotonic()
        with self._open_requests.admitted():
            replicas = self._catalog.find(request.options.model)
            model = replicas.model
            options = validate_options(request.options, model.info, model.sampling_defaults)
            if request.WhichOneof("prompt") == "token_ids":
                token_ids = validate_prompt_token_ids(request.token_ids.ids, model.info)
                prompt = await model.encode_token_ids(token_ids, options)
            else:
                text = validate_prompt_text(request.text, model.info)
                prompt = await model.encode_text(text, options)
            await self._stream(replicas, options, prompt, arrived_s, context)

    async def Chat(self, request: inference_pb2.ChatRequest, context: Any) -> None:
        arrived_s = time.monotonic()
        with self._open_requests.admitted():
            replicas = self._catalog.find(request.options.model)
            model = replicas.model
            options = validate_options(request.options, model.info, model.sampling_defaults)
            conversation = validate_chat(request, model.info)
            prompt = await model.encode_conversation(conversation, options)
            await self._stream(replicas, options, prompt, arrived_s, context)

    async def Resume(self, request: inference_pb2.ResumeRequest, context: Any) -> None:
        raise Unsupported("resuming a stream is not offered yet; send the request again")

    async def _stream(
        self,
        replicas: Replicas,
        options: ValidOptions,
        prompt: EncodedPrompt,
        arrived_s: float,
        context: Any,
    ) -> None:
        """Run a request on the engine that suits it best; on another if that does not take it."""
        if options.request_id:
            request_id.set(options.request_id)
        await context.send_initial_metadata((("x-request-id", request_id.get()),))
        engine = replicas.choose(prompt)
        try:
            await self._run(engine, replicas.model, options, prompt, arrived_s, context)
        except NotSubmitted:
            # It has ceased to serve since, or is about to; once more is enough.
            other = replicas.choose(prompt, besides=engine)
            await self._run(other, replicas.model, options, prompt, arrived_s, context)

    async def _run(
        self,
        engine: Engine,
        model: ServedModel,
        options: ValidOptions,
        prompt: EncodedPrompt,
        arrived_s: float,
        context: Any,
    ) -> None:
        """Submit a request, and write what comes of it; raises NotSubmitted before any of that."""
        submit = _submit_request(engine, options, prompt, context.time_remaining())
        stream = OutputStream(
            submit,
            _output_texts(model, options),
            engine.scheduler,
            tokenizer=model.tokenizer,
            echo=prompt.echo,
            return_token_ids=options.return_token_ids,
        )
        client = EventWriter(context, self._stall_timeout_s)
        metrics = self._metrics.stream(model.name, arrived_s)
        async with engine.scheduler.submitted(submit, stream), client.watched():
            call = RelayedCall(stream, client, metrics)
            with self._relays.joined(relay_key.get(), call) as is_relayed:
                await client.write(_started(model, options, prompt, is_relayed))
                async for event in stream.events():
                    await client.write(event)
                    metrics.observe(event, time.monotonic())


def _submit_request(
    engine: Engine, options: ValidOptions, prompt: EncodedPrompt, remaining_s: float | None
) -> scheduling_pb2.SubmitRequest:
    """Raises DeadlineExceeded if the client's time is up."""
    if remaining_s is not None and remaining_s <= 0:
        raise DeadlineExceeded("the request's deadline passed before it was submitted")
    room = engine.info.max_model_len - len(prompt.token_ids)
    max_tokens = room if options.max_tokens is None else min(options.max_tokens, room)
    return scheduling_pb2.SubmitRequest(
        request_key=secrets.token_bytes(16),
        tenant=tenant.get(),
        priority=options.priority,
        timeout_ns=None if remaining_s is None else int(remaining_s * 1e9),
        arrival_ns=time.time_ns(),
        prompt_token_ids=prompt.token_ids,
        block_hashes=prompt.block_hashes[engine.hash_scheme],
        n=len(options.seeds),
        sampling=options.sampling,
        seeds=options.seeds,
        max_tokens=max_tokens,
        stop_token_ids=sorted(options.stop_token_ids),
        min_tokens=min(options.min_tokens, max_tokens),
        bad_words=[common_pb2.TokenIds(ids=ids) for ids in prompt.bad_words],
        num_logprobs=options.num_logprobs,
        num_prompt_logprobs=options.num_prompt_logprobs,
        cache_salt=options.cache_salt,
    )


def _output_texts(model: ServedModel, options: ValidOptions) -> list[OutputText]:
    automaton = StopStringAutomaton(options.stop_strings) if options.stop_strings else None
    return [
        OutputText(
            model.tokenizer.detokenizer(skip_special_tokens=options.skip_special_tokens),
            None
            if automaton is None
            else StopStringMatcher(automaton, shows_match=options.include_stop_string),
            # What is to be shown is no stop token to the text.
            frozenset() if options.include_stop_string else options.stop_token_ids,
            min_tokens=options.min_tokens,
        )
        for _ in options.seeds
    ]


def _started(
    model: ServedModel, options: ValidOptions, prompt: EncodedPrompt, is_relayed: bool
) -> inference_pb2.StreamEvent:
    started = inference_pb2.Started(
        request_id=request_id.get(),
        model=model.name,
        num_prompt_tokens=len(prompt.token_ids),
        prompt_token_ids=prompt.token_ids if options.return_token_ids else (),
        is_relayed=is_relayed,
    )
    return inference_pb2.StreamEvent(started=started)
