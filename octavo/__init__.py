"""Octavo: serves large language models, on GPUs and, with the same code, on a CPU."""

from .version import VERSION as __version__

__all__ = ["__version__"]
