"""Octavo: serves large language models, on GPUs and, with the same code, on a CPU."""

import importlib
from typing import TYPE_CHECKING

from .version import VERSION as __version__

if TYPE_CHECKING:
    from .llm import LLM
    from .request_output import CompletionOutput, RequestOutput
    from .sampling_params import SamplingParams

__all__ = ["LLM", "CompletionOutput", "RequestOutput", "SamplingParams", "__version__"]

_MODULES = {
    "LLM": "llm",
    "CompletionOutput": "request_output",
    "RequestOutput": "request_output",
    "SamplingParams": "sampling_params",
}


def __getattr__(name: str) -> object:
    """Import the offline API when it is asked for: it brings torch, which only it needs."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_MODULES[name]}", __name__), name)
