"""octavo.worker.quantization_config: which quantized checkpoints are read, and what is refused."""

from typing import Any

import pytest

from octavo.startup import StartupError
from octavo.worker.quantization_config import matrix_format
from octavo.worker.quantized_formats import (
    BlockScaledFormat,
    Int4Format,
    MatrixFormat,
    ScaledFormat,
)

SCHEME = {"num_bits": 8, "type": "float", "symmetric": True, "strategy": "channel"}
GROUP = {"targets": ["Linear"], "weights": SCHEME, "input_activations": SCHEME}
AWQ = {"quant_method": "awq", "bits": 4, "group_size": 128, "version": "gemm", "zero_point": True}
GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": -1, "desc_act": True, "lm_head": False}
FP8 = {"quant_method": "fp8", "activation_scheme": "dynamic", "ignored_layers": ["lm_head"]}
COMPRESSED = {
    "quant_method": "compressed-tensors",
    "format": "float-quantized",
    "config_groups": {"group_0": GROUP},
    "ignore": ["lm_head"],
}


SCHEME_OF_4_BITS = {
    "num_bits": 4,
    "type": "int",
    "symmetric": True,
    "strategy": "group",
    "group_size": 128,
}
IN_4_BITS = {"targets": ["Linear"], "weights": SCHEME_OF_4_BITS, "input_activations": None}
PACKED = COMPRESSED | {"format": "pack-quantized", "config_groups": {"group_0": IN_4_BITS}}


def read(config: dict[str, Any]) -> MatrixFormat | None:
    return matrix_format({"quantization_config": config}, "dir/config.json")


def test_a_model_that_says_nothing_is_in_floating_point() -> None:
    assert matrix_format({}, "dir/config.json") is None
    assert matrix_format({"quantization_config": None}, "dir/config.json") is None


def test_each_method_says_what_a_matrix_is() -> None:
    assert read(AWQ) == Int4Format("awq", 128)
    assert read(GPTQ) == Int4Format("gptq", -1)
    assert read(GPTQ | {"checkpoint_format": "gptq_v2"}) == Int4Format("gptq_v2", -1)
    assert read(FP8) == ScaledFormat("fp8")
    assert read(FP8 | {"weight_block_size": [128, 128]}) == BlockScaledFormat()
    assert read(COMPRESSED) == ScaledFormat("fp8")
    assert read(PACKED) == Int4Format("pack-quantized", 128)
    integers = {name: SCHEME | {"type": "int"} for name in ("weights", "input_activations")}
    as_integers = {"format": "int-quantized", "config_groups": {"all": GROUP | integers}}
    assert read(COMPRESSED | as_integers) == ScaledFormat("int8")


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"bits": 4}, "quant_method is None; awq, gptq, fp8 and compressed-tensors are supported"),
        ({"quant_method": "bitsandbytes"}, "quant_method is 'bitsandbytes'"),
        (AWQ | {"bits": 3}, "bits is 3; 4 is supported"),
        (AWQ | {"group_size": 16}, "group_size is 16; -1, 32, 64 and multiples of 128"),
        (AWQ | {"group_size": "128"}, "group_size is '128'"),
        (AWQ | {"version": "gemv"}, "version is 'gemv'; 'gemm'"),
        (AWQ | {"modules_to_not_convert": ["mlp.down_proj"]}, "modules_to_not_convert is"),
        (GPTQ | {"checkpoint_format": "marlin"}, "checkpoint_format is 'marlin'"),
        (GPTQ | {"lm_head": True}, "lm_head is True; False is supported"),
        (GPTQ | {"dynamic": {"-:.*down.*": {}}}, "dynamic is"),
        (FP8 | {"weight_block_size": [64, 64]}, r"weight_block_size is \[64, 64\]; \[128, 128\]"),
        (COMPRESSED | {"format": "marlin-24"}, "format is 'marlin-24'"),
        (
            PACKED | {"config_groups": {"a": GROUP}},
            r"config_groups\.a\.input_activations is {.*}; none is supported",
        ),
        (
            PACKED | {"config_groups": {"a": IN_4_BITS | {"weights": SCHEME}}},
            r"config_groups\.a\.weights\.num_bits is 8; 4 is supported",
        ),
        (COMPRESSED | {"config_groups": {}}, r"config_groups\.group_0\.targets is None"),
        (
            COMPRESSED | {"config_groups": {"a": GROUP, "b": GROUP}},
            r"config_groups is {.*; one group is supported",
        ),
        (
            COMPRESSED | {"config_groups": {"a": GROUP | {"input_activations": None}}},
            r"config_groups\.a\.input_activations\.num_bits is None; 8 is supported",
        ),
        (
            COMPRESSED
            | {"config_groups": {"a": GROUP | {"weights": SCHEME | {"strategy": "block"}}}},
            r"config_groups\.a\.weights\.strategy is 'block'; 'channel' and 'tensor' are",
        ),
    ],
)
def test_what_is_not_read_is_refused_by_name(config: dict[str, Any], told: str) -> None:
    with pytest.raises(StartupError, match=rf"^dir/config\.json: quantization_config\.{told}"):
        read(config)


def test_something_else_than_an_object_is_refused() -> None:
    with pytest.raises(StartupError, match="quantization_config is 'awq', not an object"):
        matrix_format({"quantization_config": "awq"}, "dir/config.json")
