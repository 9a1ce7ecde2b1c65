"""What `quantization_config` in a model's config.json says of how its matrices are stored."""

from collections.abc import Mapping
from typing import Any, Literal, NoReturn

from octavo.kernels.int4_weight import is_group_size
from octavo.kernels.scaled_linear import SCALE_BLOCK_SIZE
from octavo.startup import StartupError

from .quantized_formats import BlockScaledFormat, Int4Format, MatrixFormat, ScaledFormat


def matrix_format(config: Mapping[str, Any], source: str) -> MatrixFormat | None:
    """Read config.json; None: its matrices are stored in floating point.

    Raises StartupError naming `source` and the field for what is not read here.
    """
    stored = config.get("quantization_config") or config.get("compression_config")
    if stored is None:
        return None
    if not isinstance(stored, dict):
        raise StartupError(f"{source}: quantization_config is {stored!r}, not an object.")
    fields = _Fields(stored, f"{source}: quantization_config.")
    fields.refuse_but("lm_head", None, False)
    fields.refuse_but("dynamic", None, {})
    for name in ("modules_to_not_convert", "ignored_layers", "ignore"):
        fields.refuse_but(name, None, [], ["lm_head"])
    match fields.get("quant_method"):
        case "awq":
            fields.refuse_but("version", None, "gemm", "GEMM")
            return _int4_format("awq", fields)
        case "gptq":
            fields.refuse_but("checkpoint_format", None, "gptq", "gptq_v2")
            return _int4_format(fields.get("checkpoint_format") or "gptq", fields)
        case "fp8":
            fields.refuse_but("weight_block_size", None, [SCALE_BLOCK_SIZE, SCALE_BLOCK_SIZE])
            has_blocks = fields.get("weight_block_size") is not None
            return BlockScaledFormat() if has_blocks else ScaledFormat("fp8")
        case "compressed-tensors":
            return _compressed_format(fields)
        case _:
            fields.refuse("quant_method", "awq, gptq, fp8 and compressed-tensors are")


def _int4_format(kind: Literal["awq", "gptq", "gptq_v2"], fields: "_Fields") -> Int4Format:
    fields.refuse_but("bits", 4)
    return Int4Format(kind, _group_size(fields))


def _group_size(fields: "_Fields") -> int:
    group_size = fields.get("group_size")
    if not isinstance(group_size, int) or not is_group_size(group_size):
        fields.refuse("group_size", "-1, 32, 64 and multiples of 128 are")
    return group_size


def _compressed_format(fields: "_Fields") -> MatrixFormat:
    """Read compressed-tensors' own way to say it: a scheme for groups of layers, here for all."""
    fields.refuse_but("format", "float-quantized", "int-quantized", "pack-quantized")
    groups = fields.within("config_groups")
    (name, *others) = groups.names or ["group_0"]
    if others:
        fields.refuse("config_groups", "one group is")
    group = groups.within(name)
    group.refuse_but("targets", ["Linear"])
    if fields.get("format") == "pack-quantized":
        return _packed_format(group)
    number = fields.get("format").removesuffix("-quantized")
    for kind in ("weights", "input_activations"):
        scheme = group.within(kind)
        scheme.refuse_but("num_bits", 8)
        scheme.refuse_but("type", number)
        scheme.refuse_but("symmetric", True)
    group.within("weights").refuse_but("strategy", "channel", "tensor")
    return ScaledFormat("fp8" if number == "float" else "int8")


def _packed_format(group: "_Fields") -> Int4Format:
    group.refuse_but("input_activations", None)
    weights = group.within("weights")
    weights.refuse_but("num_bits", 4)
    weights.refuse_but("type", "int")
    weights.refuse_but("symmetric", True)
    # Another order of activations moves the inputs of a group apart, as g_idx then says.
    weights.refuse_but("actorder", None, "weight", "static")
    weights.refuse_but("strategy", "group", "channel")
    group_size = -1 if weights.get("strategy") == "channel" else _group_size(weights)
    return Int4Format("pack-quantized", group_size)


class _Fields:
    """Values of a configuration; one that is not supported is an error that names the field."""

    def __init__(self, values: Mapping[str, Any], prefix: str) -> None:
        self._values = values
        self._prefix = prefix

    def get(self, name: str) -> Any:
        return self._values.get(name)

    def within(self, name: str) -> "_Fields":
        value = self.get(name)
        return _Fields(value if isinstance(value, dict) else {}, f"{self._prefix}{name}.")

    @property
    def names(self) -> list[str]:
        return list(self._values)

    def refuse_but(self, name: str, *supported: Any) -> None:
        """Raise StartupError unless a field has one of these values; None: it may be missing."""
        if self.get(name) not in supported:
            told = [repr(each) for each in supported if each is not None] or ["none"]
            self.refuse(name, f"{' and '.join(told)} {'is' if len(told) == 1 else 'are'}")

    def refuse(self, name: str, supported: str) -> NoReturn:
        raise StartupError(f"{self._prefix}{name} is {self.get(name)!r}; {supported} supported.")
