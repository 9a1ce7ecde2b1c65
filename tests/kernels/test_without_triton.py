"""The kernels of a CPU can be imported, and used, where Triton is not installed."""

import subprocess
import sys

from tests.interpreted import ROOT

IMPORT_ALL = """
import importlib, pkgutil, sys
sys.modules["triton"] = None
import torch
from octavo import kernels
for module in pkgutil.iter_modules(kernels.__path__):
    importlib.import_module(f"octavo.kernels.{module.name}")
from octavo.kernels.rms_norm_quantize import rms_norm_quantize
values, scales = rms_norm_quantize(torch.ones(2, 3), torch.ones(3), 0.0, torch.int8)
assert values.tolist() == [[127] * 3] * 2
"""


def test_only_the_path_of_a_gpu_needs_triton() -> None:
    command = [sys.executable, "-c", IMPORT_ALL]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
