"""How a model's authors advise to sample: `generation_config.json`, for what requests leave out."""

import json
from pathlib import Path
from typing import Any

from octavo.errors import InvalidArgument
from octavo.startup import StartupError
from octavo.v1 import common_pb2

from .sampling_validation import check_ranges

_FLOATS = ("temperature", "top_p", "min_p", "repetition_penalty")


def read_generation_config(model: Path) -> common_pb2.SamplingParams:
    """Return the advice of a model's directory; a GGUF file has none.

    Raises:
        StartupError: the file is damaged, or has a value that no request could ask for.
    """
    file = model / "generation_config.json"
    if not file.is_file():
        return common_pb2.SamplingParams()
    try:
        content: Any = json.loads(file.read_text(encoding="utf-8"))
        sampling = common_pb2.SamplingParams()
        for name in _FLOATS:
            if content.get(name) is not None:
                setattr(sampling, name, float(content[name]))
        # Some files say -1 for all.
        if (top_k := int(content.get("top_k") or 0)) > 0:
            sampling.top_k = top_k
        check_ranges(sampling)
    except (OSError, ValueError, TypeError, AttributeError, InvalidArgument) as error:
        raise StartupError(
            f"{file}: cannot be used: {error}; --generation-config octavo does without it"
        ) from error
    return sampling
