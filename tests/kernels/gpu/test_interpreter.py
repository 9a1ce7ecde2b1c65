"""The tests beside this one reach Triton, on a GPU or in its interpreter."""

import subprocess
import sys

import torch

from octavo.kernels.gpu.interpreter import interpreting
from tests.interpreted import ROOT


def test_these_tests_are_interpreted_unless_there_is_a_gpu() -> None:
    assert interpreting() != torch.cuda.is_available()


def test_a_run_of_other_tests_leaves_them_out() -> None:
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q"]
    command += ["tests/kernels/gpu", "tests/kernels/test_copy_blocks.py"]
    environment = {"PATH": "", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert "test_copy_blocks.py" in done.stdout and "kernels/gpu" not in done.stdout
