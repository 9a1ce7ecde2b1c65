"""A model runs on the device from plans to results, and gives transformers' tokens."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import LlamaForCausalLM

from octavo.kernels.device_linear import DeviceWeight
from octavo.startup import StartupReport
from octavo.v1.common_pb2 import SamplingParams, TokenIds
from octavo.v1.scheduling_pb2 import SubmitRequest
from octavo.v1.step_pb2 import StepPlan
from octavo.worker import piecewise_graphs
from octavo.worker.cuda_graphs import CudaGraphRecorder, GraphRecorder
from octavo.worker.device_runner import DeviceRunner
from octavo.worker.device_step import DeviceStep
from octavo.worker.loading import load_model_runner
from octavo.worker.settings import KvCacheDtype, WorkerSettings
from tests.worker.any_requests import STOP, check_answers
from tests.worker.offline_engine import OfflineEngine
from tests.worker.recorder import Recorder, prepared
from tests.worker.runners import poisoned_device_runner
from tests.worker.tiny_models import save_tiny_llama

Saved = tuple[Path, LlamaForCausalLM]

BLOCK_SIZE = 16


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    """A tiny model of one layer, as a directory and as transformers has it."""
    path = tmp_path_factory.mktemp("tiny")
    return path, save_tiny_llama(path, num_hidden_layers=1)


def request(prompt: Sequence[int], n: int = 1, **options: Any) -> SubmitRequest:
    sampling = SamplingParams(temperature=0.0, top_p=1.0, repetition_penalty=1.0)
    sampling.MergeFrom(options.pop("sampling", SamplingParams()))
    return SubmitRequest(
        prompt_token_ids=prompt,
        n=n,
        seeds=[7 * len(prompt) + output for output in range(n)],
        sampling=sampling,
        stop_token_ids=[STOP],
        max_tokens=5,
        **options,
    )


def drawn(length: int, seed: int) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 96, (length,), generator=generator).tolist()


SHARED = drawn(18, 0)
REQUESTS = (
    request(SHARED + [5], n=3, sampling=SamplingParams(temperature=0.8, top_k=30)),
    request(SHARED + [9, 4], num_logprobs=3, num_prompt_logprobs=2),
    request(
        drawn(30, 1),
        n=2,
        sampling=SamplingParams(
            temperature=0.8,
            min_p=0.02,
            presence_penalty=0.5,
            frequency_penalty=-1.5,
            repetition_penalty=1.4,
            logit_bias_token_ids=[3, 3, 50],
            logit_bias_values=[2, 1, -5],
        ),
        num_logprobs=0,
    ),
    request(
        [2],
        sampling=SamplingParams(allowed_token_ids=[*range(0, 96, 3), STOP]),
        bad_words=[TokenIds(ids=[3]), TokenIds(ids=[1, 6])],
        min_tokens=3,
    ),
    request(drawn(33, 2)),
)


class NoHostReads(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Refuses what makes the host wait for a GPU: to look at a number, or count what is set."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func not in (
            torch.ops.aten._local_scalar_dense.default,
            torch.ops.aten.nonzero.default,
            torch.ops.aten.masked_select.default,
            torch.ops.aten.bincount.default,
        ), f"{func} makes the host wait"
        return func(*args, **(kwargs or {}))


@contextmanager
def nothing_waited_for() -> Iterator[None]:
    if not torch.cuda.is_available():
        with NoHostReads():  # type: ignore[no-untyped-call]
            yield
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def graph_recorder() -> GraphRecorder:
    """Return what records for real where that is possible."""
    return CudaGraphRecorder() if torch.cuda.is_available() else Recorder()


@pytest.mark.parametrize(
    ("num_blocks", "chunk", "plans_ahead", "recorder"),
    [(64, 2048, 1, None), (5, 20, 2, graph_recorder())],
    ids=["at once", "in few blocks, in chunks, two plans ahead, on graphs"],
)
def test_tokens_are_the_references_and_no_step_waits_for_them_to_start(
    num_blocks: int,
    chunk: int,
    plans_ahead: int,
    recorder: GraphRecorder | None,
    saved: Saved,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path, model = saved
    monkeypatch.setattr(piecewise_graphs, "_MAX_TOKENS", 18)
    runner = prepared(
        poisoned_device_runner(
            path, num_blocks=num_blocks, block_size=BLOCK_SIZE, recorder=recorder
        )
    )
    start = runner.start

    def start_alone(plan: StepPlan) -> DeviceStep:
        with nothing_waited_for():
            return start(plan)

    monkeypatch.setattr(runner, "start", start_alone)
    engine = OfflineEngine(runner, max_num_batched_tokens=chunk, plans_ahead=plans_ahead)
    check_answers(model, REQUESTS, engine)
    assert (engine.scheduler.stats.num_preemptions > 0) == (num_blocks < 10)


def loaded(model: Path, kv_cache_dtype: KvCacheDtype = "auto") -> DeviceRunner:
    settings = WorkerSettings(
        model=str(model),
        scheduler_endpoint="",
        dtype="float32",
        kv_cache_dtype=kv_cache_dtype,
        num_gpu_blocks_override=32,
        max_num_seqs=8,
    )
    runner = load_model_runner(settings, StartupReport(None))
    assert isinstance(runner, DeviceRunner)
    return runner


def test_a_cache_of_eight_bits_takes_a_quarter_and_is_nearly_as_good(saved: Saved) -> None:
    prompt = request(drawn(20, 3), request_key=bytes(16), num_prompt_logprobs=0)
    told, sizes = [], []
    for kv_cache_dtype in ("auto", "fp8"):
        runner = loaded(saved[0], kv_cache_dtype)
        sizes.append(runner.describe().memory.kv_cache_bytes)
        engine = OfflineEngine(runner)
        engine.generate([prompt])
        positions = engine.prompt_logprobs[prompt.request_key]
        told.append([position.chosen.logprob for position in positions])
    assert sizes[0] == 4 * sizes[1]
    assert told[0] != told[1]
    assert told[0] == pytest.approx(told[1], abs=1.0)


def test_a_tied_head_is_the_embedding_itself(tmp_path: Path) -> None:
    model = save_tiny_llama(tmp_path, num_hidden_layers=1, tie_word_embeddings=True)
    runner = loaded(tmp_path)
    weights = runner._forward._decoder._weights
    assert isinstance(weights.lm_head, DeviceWeight)
    assert weights.lm_head.matrix is weights.embed_tokens
    num_parameters = sum(each.numel() for each in model.parameters())
    assert runner.describe().memory.weights_bytes == 4 * num_parameters
