"""LLM, the offline API: a model in this process, without a server.

    from octavo import LLM, SamplingParams

    llm = LLM(model="demo")
    for output in llm.generate(["The capital of France is"], SamplingParams(temperature=0)):
        print(output.outputs[0].text)

Names and results are those of vLLM's LLM. What a request may ask, and what it is told when it asks
for something else, is the router's: the same code serves it.
"""

import gc
import itertools
import weakref
from collections.abc import Sequence
from pathlib import Path

from octavo.scheduler.settings import SchedulerSettings
from octavo.worker.loading import load_model_runner
from octavo.worker.settings import (
    DeviceName,
    Dtype,
    KvCacheDtype,
    LoadFormat,
    Quantization,
    WorkerSettings,
)
from octavo.worker.step_loop import StepRunner

from .errors import FailedPrecondition
from .loop_thread import LoopThread
from .model_files import resolve_model
from .offline_engine import InProcessScheduler, OfflineEngine, Request
from .offline_requests import (
    Message,
    Prompt,
    Tool,
    chat_request,
    conversations_of,
    generate_request,
    options_of_each,
    prompts_of,
)
from .progress_bar import progress_bar
from .request_output import RequestOutput
from .sampling_params import SamplingParams
from .startup import StartupReport
from .v1 import inference_pb2

__all__ = ["LLM"]


class LLM:
    """A model, its KV cache and its scheduler. Options are the flags of `octavo serve`."""

    def __init__(
        self,
        model: str,
        *,
        revision: str | None = None,
        device: DeviceName = "auto",
        dtype: Dtype = "auto",
        quantization: Quantization | None = None,
        load_format: LoadFormat = "auto",
        max_model_len: int | None = None,
        block_size: int = 16,
        max_num_seqs: int = 256,
        max_num_batched_tokens: int | None = None,
        kv_cache_dtype: KvCacheDtype = "auto",
        kv_cache_memory_bytes: int | None = None,
        gpu_memory_utilization: float = 0.9,
        num_gpu_blocks_override: int | None = None,
        enable_prefix_caching: bool = True,
        async_scheduling: bool = True,
        chat_template: str | Path | None = None,
        enforce_eager: bool = False,
        cpu_threads: int | None = None,
        seed: int = 0,
    ) -> None:
        """Load the model: a path, an id on the hub or `demo`; raises StartupError."""
        worker = WorkerSettings(
            model=str(resolve_model(model, revision=revision)),
            scheduler_endpoint="",
            device=device,
            dtype=dtype,
            quantization=quantization,
            load_format=load_format,
            block_size=block_size,
            max_model_len=max_model_len,
            max_num_seqs=max_num_seqs,
            max_num_batched_tokens=max_num_batched_tokens,
            kv_cache_dtype=kv_cache_dtype,
            kv_cache_memory_bytes=kv_cache_memory_bytes,
            gpu_memory_utilization=gpu_memory_utilization,
            num_gpu_blocks_override=num_gpu_blocks_override,
            enforce_eager=enforce_eager,
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
            async_scheduling=async_scheduling,
        )
        template = None if chat_template is None else Path(chat_template)
        self._model = model
        self._request_ids = itertools.count()
        self._thread = LoopThread()
        try:
            self._engine = self._thread.run(self._start(worker, scheduler, template))
        except BaseException:
            # Whatever it is, Ctrl-C too: nobody will close what was never made.
            self._thread.stop()
            raise
        # To look for garbage among all that was imported and loaded stops a step for 0.15 s.
        gc.freeze()
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
        each = prompts_of(prompts)
        options = self._options(sampling_params, len(each))
        return self._run(list(map(generate_request, each, options)), use_tqdm=use_tqdm)

    def chat(
        self,
        messages: Sequence[Message] | Sequence[Sequence[Message]],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        use_tqdm: bool = True,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        tools: Sequence[Tool] | None = None,
    ) -> list[RequestOutput]:
        """Answer one conversation or several, through the model's chat template.

        `tools` are OpenAI's descriptions, for the template; all else is as in `generate`.
        """
        conversations = conversations_of(messages)
        requests = [
            chat_request(
                conversation,
                options,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=continue_final_message,
                tools=tools,
            )
            for conversation, options in zip(
                conversations, self._options(sampling_params, len(conversations)), strict=True
            )
        ]
        return self._run(requests, use_tqdm=use_tqdm)

    def close(self) -> None:
        """Give memory and processes back; also happens when the LLM is no longer used."""
        self._close()

    def load_runner(self, settings: WorkerSettings) -> StepRunner:
        """Load the model, on the thread that will run it: threads that compute belong to it.

        A subclass that wants to see the steps returns what passes them on.
        """
        return load_model_runner(settings, _SilentReport(None))

    async def _start(
        self, worker: WorkerSettings, scheduler: SchedulerSettings, chat_template: Path | None
    ) -> OfflineEngine:
        runner = self.load_runner(worker)
        # A server does this while nobody asks; here one step follows another from first to last.
        while runner.prepare():
            pass
        engine = OfflineEngine(InProcessScheduler(runner, scheduler), chat_template)
        await engine.start()
        return engine

    def _options(
        self, sampling_params: SamplingParams | Sequence[SamplingParams | None] | None, count: int
    ) -> list[inference_pb2.GenerationOptions]:
        """Return the options of each of `count` requests."""
        each = options_of_each(sampling_params, count)
        for options in each:
            options.model = self._model
            options.request_id = str(next(self._request_ids))
            options.return_token_ids = True
        return each

    def _run(self, requests: Sequence[Request], *, use_tqdm: bool) -> list[RequestOutput]:
        if not self._close.alive:
            raise FailedPrecondition("this LLM was closed; make a new one")
        if not use_tqdm:
            return self._thread.run(self._engine.run(requests, lambda output: None))
        with progress_bar("Processed prompts", len(requests)) as advance:
            return self._thread.run(self._engine.run(requests, lambda output: advance()))


def _close(thread: LoopThread, engine: OfflineEngine) -> None:
    thread.run(engine.close())
    thread.stop()
    gc.unfreeze()


class _SilentReport(StartupReport):
    """A library prints nothing on its own."""

    def stage(self, text: str) -> None:
        """Nobody waits for it."""
