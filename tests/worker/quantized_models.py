"""Tiny models whose linear layers are quantized, as plain PyTorch computes them."""

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import LlamaForCausalLM

from tests.kernels.int4_packing import AWQ_ORDER, pack

_LARGEST = {torch.float8_e4m3fn: 448.0, torch.int8: 127.0}


def with_linear_layers(
    model: LlamaForCausalLM,
    weight: Callable[[Tensor], Tensor],
    activations: Callable[[Tensor], Tensor] | None = None,
) -> LlamaForCausalLM:
    """Return a copy in whose layers all matrices, and maybe what they multiply, are made anew."""
    changed = copy.deepcopy(model)
    for module in changed.model.layers.modules():
        if isinstance(module, torch.nn.Linear):
            module.weight.data = weight(module.weight.data)
            if activations is not None:
                module.register_forward_pre_hook(lambda _, inputs: (activations(inputs[0]),))
    return changed


def rounded(rows: Tensor, dtype: torch.dtype) -> Tensor:
    """Return what numbers of 8 bits, and a scale for each row of them, are for `rows`."""
    scales = rows.abs().amax(dim=-1, keepdim=True) / _LARGEST[dtype]
    numbers = rows / scales
    return (numbers.round() if dtype == torch.int8 else numbers.to(dtype).to(rows.dtype)) * scales


def in_8_bits(model: LlamaForCausalLM, dtype: torch.dtype) -> LlamaForCausalLM:
    """Return a copy with one scale for each output of a matrix, and for each token."""

    def as_8_bits(rows: Tensor) -> Tensor:
        return rounded(rows, dtype)

    return with_linear_layers(model, as_8_bits, as_8_bits)


def save_in_4_bits(
    path: Path,
    model: LlamaForCausalLM,
    kind: Literal["awq", "gptq", "compressed-tensors"],
    group_size: int,
    *,
    is_in_order: bool = True,
) -> LlamaForCausalLM:
    """Save a model with its matrices in 4 bits; return what these stand for.

    Args:
        kind: who stores them so; the last one has only weights whose zero points are 8.
        is_in_order: whether the inputs of a group are neighbours; those of GPTQ need not be.
    """
    stored = copy.deepcopy(model)
    tensors: dict[str, Tensor] = {}
    for name, layer in linear_layers(stored):
        # Those that multiply the same inputs have them in the same order.
        torch.manual_seed(layer.in_features)
        size = layer.in_features if group_size == -1 else group_size
        groups = torch.arange(layer.in_features) // size
        if not is_in_order:
            groups = groups[torch.randperm(len(groups))]
        numbers = _in_groups(layer.weight.data, groups, is_symmetric=kind == "compressed-tensors")
        values, scales, zero_points = numbers
        layer.weight.data = (values - zero_points[groups].T) * scales[groups].T.float()
        parts = _parts_of_4_bits(kind, *numbers, groups)
        tensors |= {f"{name}.{part}": tensor for part, tensor in parts.items()}
    _save(path, model, tensors, _config_of_4_bits(kind, group_size, is_in_order))
    return stored


def _parts_of_4_bits(
    kind: str, values: Tensor, scales: Tensor, zero_points: Tensor, groups: Tensor
) -> dict[str, Tensor]:
    match kind:
        case "awq":
            return {
                "qweight": pack(values.T, AWQ_ORDER),
                "qzeros": pack(zero_points, AWQ_ORDER),
                "scales": scales,
            }
        case "gptq":
            return {
                "qweight": pack(values).T,
                "qzeros": pack(zero_points),
                "scales": scales,
                "g_idx": groups.to(torch.int32),
            }
        case _:
            return {
                "weight_packed": pack(values),
                "weight_scale": scales.T,
                "weight_shape": torch.tensor(values.shape),
            }


def _config_of_4_bits(kind: str, group_size: int, is_in_order: bool) -> dict[str, Any]:
    config: dict[str, Any] = {"quant_method": kind}
    match kind:
        case "awq":
            config |= {"version": "gemm", "zero_point": True, "modules_to_not_convert": None}
        case "gptq":
            config |= {"desc_act": not is_in_order, "sym": False, "checkpoint_format": "gptq_v2"}
        case _:
            strategy = "channel" if group_size == -1 else "group"
            weights = {
                "num_bits": 4,
                "type": "int",
                "symmetric": True,
                "strategy": strategy,
                "group_size": None if group_size == -1 else group_size,
            }
            group = {"targets": ["Linear"], "weights": weights, "input_activations": None}
            groups = {"group_0": group}
            return config | {"format": "pack-quantized", "config_groups": groups}
    return config | {"bits": 4, "group_size": group_size}


def save_in_fp8(
    path: Path, model: LlamaForCausalLM, scales: Literal["matrix", "output", "block"]
) -> LlamaForCausalLM:
    """Save a model with matrices in fp8; return what these stand for.

    Args:
        scales: what has one: a matrix, each of its outputs, or each block of 128 by 128.
    """
    stored = copy.deepcopy(model)
    tensors: dict[str, Tensor] = {}
    for name, layer in linear_layers(stored):
        weight = layer.weight.data
        match scales:
            case "matrix":
                absmax = weight.abs().amax()
            case "output":
                absmax = weight.abs().amax(dim=1, keepdim=True)
            case "block":
                # The matrices of these models are smaller than a block.
                absmax = weight.abs().amax()[None, None]
        scale = absmax / _LARGEST[torch.float8_e4m3fn]
        values = (weight / scale).to(torch.float8_e4m3fn)
        layer.weight.data = values.float() * scale
        scale_name = "weight_scale_inv" if scales == "block" else "weight_scale"
        tensors |= {f"{name}.weight": values, f"{name}.{scale_name}": scale}
    _save(path, model, tensors, _config_of_fp8(scales))
    return stored


def _config_of_fp8(scales: str) -> dict[str, Any]:
    if scales != "output":
        block = [128, 128] if scales == "block" else None
        return {
            "quant_method": "fp8",
            "activation_scheme": "dynamic",
            "weight_block_size": block,
        }
    scheme = {"num_bits": 8, "type": "float", "symmetric": True}
    group = {
        "targets": ["Linear"],
        "weights": scheme | {"strategy": "channel", "dynamic": False},
        "input_activations": scheme | {"strategy": "token", "dynamic": True},
    }
    return {
        "quant_method": "compressed-tensors",
        "format": "float-quantized",
        "config_groups": {"group_0": group},
        "ignore": ["lm_head"],
    }


def linear_layers(model: LlamaForCausalLM) -> Iterator[tuple[str, torch.nn.Linear]]:
    for name, module in model.model.layers.named_modules(prefix="model.layers"):
        if isinstance(module, torch.nn.Linear):
            yield name, module


def _in_groups(weight: Tensor, groups: Tensor, is_symmetric: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return numbers of 4 bits; of each group of inputs, [num_groups, out_features], scale and
    zero point."""
    values, scales, zero_points = torch.empty_like(weight, dtype=torch.int64), [], []
    for group in range(int(groups.max()) + 1):
        part = weight[:, groups == group]
        if is_symmetric:
            scale = (part.abs().amax(dim=1) / 7.5).half()
            zero_point = torch.full_like(scale, 8).float()
        else:
            smallest, largest = part.amin(dim=1).clamp(max=0), part.amax(dim=1).clamp(min=0)
            scale = ((largest - smallest) / 15).half()
            zero_point = (-smallest / scale.float()).round().clamp(0, 15)
        numbers = (part / scale.float()[:, None] + zero_point[:, None]).round().clamp(0, 15)
        values[:, groups == group] = numbers.long()
        scales.append(scale)
        zero_points.append(zero_point.long())
    return values, torch.stack(scales), torch.stack(zero_points)


def _save(
    path: Path,
    model: LlamaForCausalLM,
    tensors: dict[str, Tensor],
    quantization_config: dict[str, Any],
) -> None:
    """Save a model with other tensors in the place of its matrices."""
    model.save_pretrained(path)
    file = path / "model.safetensors"
    matrices = {f"{name}.weight" for name, _ in linear_layers(model)}
    others = {name: each for name, each in load_file(file).items() if name not in matrices}
    save_file({name: each.contiguous() for name, each in (others | tensors).items()}, file)
    config = json.loads((path / "config.json").read_text())
    config["quantization_config"] = quantization_config
    (path / "config.json").write_text(json.dumps(config))
