"""Where the peers are installed: one directory, laid out as README.md says."""

import os
from dataclasses import dataclass
from pathlib import Path

from .process_group import EngineFailed

_VLLM_LIBRARIES = ("libtcmalloc_minimal.so*", "libiomp5.so")
"""Preloaded, as vLLM's guide for CPUs advises."""


@dataclass(frozen=True, slots=True)
class Installation:
    """The directory of `--peers`."""

    directory: Path

    def vllm_command(self, name: str) -> str:
        """Return `python` or `vllm` of vLLM's own environment."""
        return str(self._existing(f"vllm/bin/{name}"))

    def vllm_environment(self) -> dict[str, str]:
        """Return what vLLM runs best with: its libraries, all cores, nothing from a network."""
        cores = f"0-{(os.cpu_count() or 1) - 1}"
        library = self._existing("vllm/lib")
        found = [next(iter(sorted(library.glob(name))), None) for name in _VLLM_LIBRARIES]
        missing = [n for n, path in zip(_VLLM_LIBRARIES, found, strict=True) if path is None]
        if missing:
            raise EngineFailed(f"{library} lacks {', '.join(missing)}; benchmarks/peers/README.md")
        return {
            "LD_PRELOAD": ":".join(map(str, found)),
            "VLLM_CPU_KVCACHE_SPACE": "3",
            "VLLM_CPU_OMP_THREADS_BIND": os.environ.get("VLLM_CPU_OMP_THREADS_BIND", cores),
            "VLLM_NO_USAGE_STATS": "1",
            "HF_HUB_OFFLINE": "1",
        }

    def llama_cpp_command(self, name: str) -> str:
        """Return `llama-batched-bench` or `llama-server`."""
        return str(self._existing(f"llama.cpp/bin/{name}"))

    def gguf(self, kind: str) -> Path:
        """Return the model as bf16, q8_0, q4_0 or q4_1."""
        return self._existing(f"models/{kind}.gguf")

    def checkpoint(self, kind: str) -> Path:
        """Return the Hugging Face directory of bf16 or w8a8."""
        return self._existing(f"models/{kind}")

    def _existing(self, path: str) -> Path:
        # Not resolved: the links of a virtual environment are what makes it one.
        found = self.directory / path
        if not found.exists():
            raise EngineFailed(
                f"{found} is missing; benchmarks/peers/README.md says how to make it, "
                "--peers names another directory"
            )
        return found
