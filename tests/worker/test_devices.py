"""octavo.worker.devices: which device is taken, and what an operator hears who asks for another."""

import pytest
import torch

from octavo.startup import StartupError
from octavo.worker import devices
from octavo.worker.devices import (
    batched_tokens,
    check_quantization,
    choose_cache_dtype,
    choose_device,
    choose_dtype,
)
from octavo.worker.settings import Quantization

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


@pytest.fixture
def has_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)


@pytest.fixture
def has_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.usefixtures("has_gpu")
def test_auto_takes_a_gpu_if_there_is_one() -> None:
    assert choose_device("auto") == choose_device("cuda") == CUDA
    assert choose_device("cpu") == CPU


@pytest.mark.usefixtures("has_no_gpu")
def test_without_a_gpu_auto_takes_the_cpu_and_cuda_is_refused() -> None:
    assert choose_device("auto") == choose_device("cpu") == CPU
    with pytest.raises(StartupError, match="--device cuda: PyTorch finds no GPU"):
        choose_device("cuda")


def test_auto_is_bfloat16_on_a_gpu_and_any_type_is_taken() -> None:
    assert choose_dtype("auto", CUDA) == torch.bfloat16
    assert choose_dtype("float16", CUDA) == torch.float16
    assert choose_dtype("float32", CUDA) == torch.float32


def test_each_device_has_a_cache_of_eight_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    assert choose_cache_dtype("auto", torch.bfloat16, CUDA) == torch.bfloat16
    assert choose_cache_dtype("auto", torch.float32, CPU) == torch.float32
    assert choose_cache_dtype("fp8", torch.bfloat16, CUDA) == torch.float8_e4m3fn
    assert choose_cache_dtype("int8", torch.bfloat16, CPU) == torch.int8
    assert choose_cache_dtype("int8", torch.float32, CPU) == torch.int8
    with pytest.raises(StartupError, match="--kv-cache-dtype int8 is for CPUs, .* Give fp8, or"):
        choose_cache_dtype("int8", torch.bfloat16, CUDA)
    with pytest.raises(StartupError, match="--kv-cache-dtype fp8 is for GPUs, .* Give int8, or"):
        choose_cache_dtype("fp8", torch.bfloat16, CPU)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 6))
    with pytest.raises(StartupError, match="compute capability 8.9"):
        choose_cache_dtype("fp8", torch.bfloat16, CUDA)


def test_a_device_multiplies_by_some_quantized_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 9))
    of_gpus: tuple[Quantization | None, ...] = (None, "fp8", "int8")
    of_cpus: tuple[Quantization | None, ...] = (None, "int8", "int4", "gguf")
    for quantization in of_gpus:
        check_quantization(quantization, CUDA)
    for quantization in of_cpus:
        check_quantization(quantization, CPU)
    for quantization in set(of_cpus) - set(of_gpus):
        with pytest.raises(StartupError, match=f"--quantization {quantization} is for CPUs"):
            check_quantization(quantization, CUDA)
    with pytest.raises(StartupError, match="--quantization fp8 is for GPUs, .* Give int8 or int4"):
        check_quantization("fp8", CPU)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 6))
    check_quantization("int8", CUDA)
    with pytest.raises(StartupError, match=r"compute capability 8\.9 .* Give int8, or leave"):
        check_quantization("fp8", CUDA)


def test_float16_is_not_for_cpus() -> None:
    assert choose_dtype("float32", CPU) == torch.float32
    with pytest.raises(StartupError, match="--dtype float16 is for GPUs"):
        choose_dtype("float16", CPU)


def test_a_gpu_keeps_for_the_cache_what_the_rest_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (70 << 30, 80 << 30))
    assert devices.kv_cache_bytes(CUDA, 20 << 30, 1 << 30, 0.5) == (40 - 21) << 30
    # Others have 10 GiB.
    assert devices.kv_cache_bytes(CUDA, 20 << 30, 1 << 30, 1.0) == (70 - 21) << 30
    assert devices.kv_cache_bytes(CUDA, 90 << 30, 0, 1.0) == 0


def test_steps_of_a_gpu_hold_more_tokens_unless_somebody_says() -> None:
    assert (batched_tokens(CPU), batched_tokens(CUDA)) == (512, 8192)
