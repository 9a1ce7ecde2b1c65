"""Which device runs the steps, what it computes fast, and how much memory it has."""

import torch

from octavo.kernels.gpu.interpreter import interpreting
from octavo.startup import StartupError

from . import cpu
from .device_memory import CudaMemory, DeviceMemory
from .kv_cache import default_kv_cache_bytes
from .memory import available_bytes, machine_bytes
from .settings import DeviceName, Dtype, KvCacheDtype, Quantization

# Compute capability: older GPUs do not convert from and to 8 bits.
_FIRST_WITH_FP8 = (8, 9)
GPUS_WITH_FP8 = "a GPU of compute capability 8.9 or newer, such as an L4 or an H100"


def choose_device(name: DeviceName) -> torch.device:
    """Return the device that was asked for; raises StartupError if there is none."""
    has_cuda = torch.cuda.is_available()
    if name == "cuda" and not has_cuda:
        raise StartupError(
            "--device cuda: PyTorch finds no GPU. Install its CUDA build and the GPU's driver, or"
            " leave the flag out to run on the CPU."
        )
    if name == "cpu" or not has_cuda:
        return torch.device("cpu")
    return torch.device("cuda", torch.cuda.current_device())


def runs_beside_cpu(device: torch.device) -> bool:
    """Say whether steps are queued on the device, as on GPUs; and where Triton is interpreted."""
    return device.type == "cuda" or interpreting()


def choose_dtype(dtype: Dtype, device: torch.device) -> torch.dtype:
    """Return the type of weights and activations; `auto` is what the device computes fast."""
    if device.type == "cuda":
        return torch.bfloat16 if dtype == "auto" else getattr(torch, dtype)
    if dtype != "float16":
        return cpu.choose_dtype(dtype)
    if not runs_beside_cpu(device):
        raise StartupError(
            "--dtype float16 is for GPUs; a CPU computes it slowly. Give bfloat16 or float32, or"
            " leave the flag out."
        )
    return torch.float16


def choose_cache_dtype(name: KvCacheDtype, dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """Return the type of the KV cache of a model that computes in `dtype`."""
    match name, runs_beside_cpu(device):
        case "auto", _:
            return dtype
        case "int8", False:
            return torch.int8
        case "fp8", True if has_fp8(device):
            return torch.float8_e4m3fn
        case "int8", True:
            reason = "is for CPUs, and the model runs on a GPU. Give fp8"
        case _, False:
            reason = "is for GPUs, and the model runs on the CPU. Give int8"
        case _:
            raise StartupError(
                f"--kv-cache-dtype {name} wants {GPUS_WITH_FP8}. Leave the flag out."
            )
    raise StartupError(f"--kv-cache-dtype {name} {reason}, or leave the flag out.")


def check_quantization(quantization: Quantization | None, device: torch.device) -> None:
    """Raise StartupError where the device does not multiply by such weights."""
    match quantization, runs_beside_cpu(device):
        case "fp8", False:
            reason = "is for GPUs, and the model runs on the CPU. Give int8 or int4"
        case (("int4" | "gguf"), True):
            reason = "is for CPUs, and the model runs on a GPU. Give fp8 or int8"
        case "fp8", True if not has_fp8(device):
            reason = f"wants {GPUS_WITH_FP8}. Give int8"
        case _:
            return
    raise StartupError(f"--quantization {quantization} {reason}, or leave the flag out.")


def has_fp8(device: torch.device) -> bool:
    """Say whether a GPU has numbers of type float8_e4m3fn; Triton's interpreter has."""
    if device.type != "cuda":
        return True
    return torch.cuda.get_device_capability(device) >= _FIRST_WITH_FP8


def describe_device(device: torch.device) -> str:
    """Return a line for people, such as `cuda (NVIDIA H200)`."""
    if device.type == "cuda":
        return f"cuda ({torch.cuda.get_device_name(device)})"
    return cpu.describe_device()


def batched_tokens(device: torch.device) -> int:
    """Return the most tokens of a step where nobody said: as many as the device computes well."""
    return 8192 if device.type == "cuda" else 512


def total_bytes(device: torch.device) -> int:
    """Return the memory of the device, or of the machine that it is."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[1]
    return machine_bytes()


def free_bytes(device: torch.device) -> int:
    """Return what can still be taken."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return available_bytes()


def memory_of(device: torch.device) -> DeviceMemory | None:
    """Return who tells of the device's memory; None where that is shared with all programs."""
    return CudaMemory(device) if device.type == "cuda" else None


def kv_cache_bytes(
    device: torch.device,
    weights_bytes: int,
    activations_bytes: int,
    gpu_memory_utilization: float,
) -> int:
    """Return the memory for the KV cache when nobody said, before anything is loaded.

    On a GPU that is what weights and activations leave of the share; see device_trial.py for what
    is measured later.
    """
    if device.type != "cuda":
        return default_kv_cache_bytes(weights_bytes)
    free, total = torch.cuda.mem_get_info(device)
    usable = min(int(total * gpu_memory_utilization), free)
    return max(usable - weights_bytes - activations_bytes, 0)
