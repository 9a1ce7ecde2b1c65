"""LLM, the offline API: a model in this process, without a server.

    from octavo import LLM, SamplingParams

    llm = LLM(model="demo")
    for output in llm.generate(["The capital of France is"], SamplingParams(temperature=0)):
        print(output.outputs[0].text)

Names and results are those of vLLM's LLM. What a request may ask, and what it is told when it asks
for something else, is the router's: the same code serves it.
"""

import asyncio
import contextlib
import itertools
import json
import threading
import weakref
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from octavo.scheduler.settings import SchedulerSettings
from octavo.worker.loading import load_model_runner
from octavo.worker.settings import Dtype, LoadFormat, WorkerSettings

from .errors import InvalidArgument
from .model_files import resolve_model
from .offline_engine import InProcessScheduler, OfflineEngine, Request
from .request_output import RequestOutput
from .sampling_params import SamplingParams
from .startup import StartupReport
from .v1 import common_pb2, inference_pb2

__all__ = ["LLM"]

Prompt = str | Sequence[int] | Mapping[str, Any]
"""Text, token ids, or {"prompt": text} or {"prompt_token_ids": ids}."""
Message = Mapping[str, Any]
"""{"role": ..., "content": text}."""

_UNLIMITED = 2**31
_JOIN_TIMEOUT_S = 10.0
_Result = TypeVar("_Result")


class LLM:
    """A model, its KV cache and its scheduler. Options are the flags of `octavo serve`."""

    def __init__(
        self,
        model: str,
        *,
        dtype: Dtype = "auto",
        load_format: LoadFormat = "auto",
        max_model_len: int | None = None,
        block_size: int = 16,
        max_num_seqs: int = 256,
        max_num_batched_tokens: int = 512,
        kv_cache_memory_bytes: int | None = None,
        num_gpu_blocks_override: int | None = None,
        enable_prefix_caching: bool = True,
        chat_template: str | Path | None = None,
        cpu_threads: int | None = None,
        seed: int = 0,
    ) -> None:
        """Load the model: a directory, a .gguf file or `demo`; raises StartupError."""
        worker = WorkerSettings(
            model=str(resolve_model(model)),
            scheduler_endpoint="",
            dtype=dtype,
            load_format=load_format,
            block_size=block_size,
            max_model_len=max_model_len,
            max_num_seqs=max_num_seqs,
            max_num_batched_tokens=max_num_batched_tokens,
            kv_cache_memory_bytes=kv_cache_memory_bytes,
            num_gpu_blocks_override=num_gpu_blocks_override,
            cpu_threads=cpu_threads,
            seed=seed,
        )
        scheduler = SchedulerSettings(
            listen="",
            worker_endpoint="",
            served_model_name=(model,),
            max_model_len=max_model_len,
            max_num_seqs=max_num_seqs,
            max_num_batched_tokens=max_num_batched_tokens,
            enable_prefix_caching=enable_prefix_caching,
            # All prompts of a call wait at once.
            max_num_queued_requests=_UNLIMITED,
        )
        template = None if chat_template is None else Path(chat_template)
        self._model = model
        self._request_ids = itertools.count()
        self._thread = _LoopThread()
        self._engine = self._thread.run(_start(worker, scheduler, template))
        self._close = weakref.finalize(self, _close, self._thread, self._engine)

    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        use_tqdm: bool = True,
    ) -> list[RequestOutput]:
        """Continue the prompts; returns their outputs in order.

        Args:
            prompts: one prompt, or as many as there are; they run together.
            sampling_params: one for all or one for each; None: the model's own defaults.
            use_tqdm: show a progress bar, if the standard error stream is a terminal.
        Raises:
            RequestError: a prompt or a parameter is wrong, in a sentence that names it.
        """
        each = _one_or_many(prompts)
        requests: list[Request] = []
        for prompt, options in zip(each, self._options(sampling_params, len(each)), strict=True):
            token_ids = _token_ids(prompt)
            if token_ids is None:
                text = prompt["prompt"] if isinstance(prompt, Mapping) else prompt
                requests.append(inference_pb2.GenerateRequest(options=options, text=str(text)))
            else:
                ids = common_pb2.TokenIds(ids=token_ids)
                requests.append(inference_pb2.GenerateRequest(options=options, token_ids=ids))
        return self._run(requests, use_tqdm=use_tqdm)

    def chat(
        self,
        messages: Sequence[Message] | Sequence[Sequence[Message]],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        use_tqdm: bool = True,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        tools: Sequence[Mapping[str, Any]] | None = None,
    ) -> list[RequestOutput]:
        """Answer one conversation or several, through the model's chat template.

        `tools` are OpenAI's descriptions, for the template; all else is as in `generate`.
        """
        is_one = bool(messages) and isinstance(messages[0], Mapping)
        conversations: Any = [messages] if is_one else messages
        options = self._options(sampling_params, len(conversations))
        requests: list[Request] = [
            inference_pb2.ChatRequest(
                options=each,
                messages=[_chat_message(message) for message in conversation],
                add_generation_prompt=add_generation_prompt,
                continue_final_message=continue_final_message,
                tools_json=json.dumps(tools) if tools else "",
            )
            for conversation, each in zip(conversations, options, strict=True)
        ]
        return self._run(requests, use_tqdm=use_tqdm)

    def close(self) -> None:
        """Give memory and processes back; also happens when the LLM is no longer used."""
        self._close()

    def _options(
        self, sampling_params: SamplingParams | Sequence[SamplingParams | None] | None, count: int
    ) -> list[inference_pb2.GenerationOptions]:
        """Return the options of each of `count` requests."""
        if sampling_params is None or isinstance(sampling_params, SamplingParams):
            sampling_params = [sampling_params] * count
        if len(sampling_params) != count:
            raise InvalidArgument(
                f"there are {len(sampling_params)} sampling_params for {count} prompts; give one"
                " for all or one for each",
                field="sampling_params",
            )
        each = [_model_defaults() if p is None else p.to_options() for p in sampling_params]
        for options in each:
            options.model = self._model
            options.request_id = str(next(self._request_ids))
            options.return_token_ids = True
        return each

    def _run(self, requests: Sequence[Request], *, use_tqdm: bool) -> list[RequestOutput]:
        with _progress(len(requests), is_shown=use_tqdm) as on_finished:
            return self._thread.run(self._engine.run(requests, on_finished))


class _LoopThread:
    """A thread with an event loop: the engine runs on it, whatever loop the caller has."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name="octavo-engine", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        """Return what `work` returns; Ctrl-C ends it within a step."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            # Ctrl-C arrives here, while the work is on the other thread.
            future.cancel()
            raise

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_JOIN_TIMEOUT_S)

    def _serve(self) -> None:
        self._loop.run_forever()
        self._loop.close()


async def _start(
    worker: WorkerSettings, scheduler: SchedulerSettings, chat_template: Path | None
) -> OfflineEngine:
    """Load the model on the thread that will run it: threads that compute belong to it."""
    runner = load_model_runner(worker, _SilentReport(None))
    engine = OfflineEngine(InProcessScheduler(runner, scheduler), chat_template)
    await engine.start()
    return engine


def _close(thread: _LoopThread, engine: OfflineEngine) -> None:
    thread.run(engine.close())
    thread.stop()


class _SilentReport(StartupReport):
    """A library prints nothing on its own."""

    def stage(self, text: str) -> None:
        """Nobody waits for it."""


def _model_defaults() -> inference_pb2.GenerationOptions:
    """Leave to the model what SamplingParams would say, but for the length."""
    stop = common_pb2.StopConditions(max_tokens=SamplingParams().max_tokens)
    return inference_pb2.GenerationOptions(n=1, stop=stop)


def _one_or_many(prompts: Prompt | Sequence[Prompt]) -> Sequence[Prompt]:
    """Return the prompts as a sequence; token ids on their own are one prompt."""
    if isinstance(prompts, str | Mapping) or (prompts and isinstance(prompts[0], int)):
        return [prompts]  # type: ignore[list-item]
    return prompts  # type: ignore[return-value]


def _token_ids(prompt: Prompt) -> Sequence[int] | None:
    """Return the token ids of a prompt; None if it is text."""
    if isinstance(prompt, str):
        return None
    if not isinstance(prompt, Mapping):
        return prompt
    if ("prompt" in prompt) == ("prompt_token_ids" in prompt):
        raise InvalidArgument(
            f'a prompt has the keys {sorted(prompt)}; give either "prompt" or "prompt_token_ids"',
            field="prompt",
        )
    return prompt.get("prompt_token_ids")


def _chat_message(message: Message) -> inference_pb2.ChatMessage:
    content = message.get("content")
    if not isinstance(content, str):
        raise InvalidArgument(
            f"the content of a message is {content!r:.80}; this model takes text only",
            field="messages",
        )
    return inference_pb2.ChatMessage(role=str(message.get("role", "")), content=content)


@contextlib.contextmanager
def _progress(total: int, *, is_shown: bool) -> Iterator[Callable[[RequestOutput], None]]:
    """Show a bar while the block runs; yields what is to be called with each finished request."""
    console = Console(stderr=True)
    columns = (
        TextColumn("Processed prompts"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    is_shown = is_shown and console.is_terminal
    with Progress(*columns, console=console, disable=not is_shown) as progress:
        task = progress.add_task("", total=total)
        yield lambda output: progress.advance(task)
