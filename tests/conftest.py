"""What tests of several folders share: the demo model, as it is and as transformers reads it."""

import functools
import os
import sys
from pathlib import Path

import pytest

from octavo.file_lock import file_lock
from octavo.model_files import demo_model_path


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """torch, if any test has imported it, computes on one thread unless a test asks for more.

    The processes of a run share the cores; threads would wait for others that are not running.
    """
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)


@pytest.fixture(scope="session")
def demo_model() -> Path:
    """The demo model's GGUF file, fetched once and cached."""
    return demo_model_path()


@pytest.fixture(scope="session")
def demo_in_transformers(demo_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Model and tokenizer that transformers makes of the GGUF file, float32, in its own format.

    To read the file takes it 10 s of computing: one process of a test run does, for all of them.
    """
    own = tmp_path_factory.getbasetemp()
    # pytest-xdist gives each process a folder within that of the run.
    of_run = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    folder = of_run / "demo_in_transformers"
    with file_lock(folder.with_suffix(".lock")):
        if not folder.exists():
            convert(demo_model, folder)
    return folder


def convert(gguf_path: Path, folder: Path) -> None:
    # Seconds, that the tests of everything else need not wait.
    import gguf
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source, unfinished = gguf_path.parent, folder.with_suffix(".unfinished")
    with pytest.MonkeyPatch.context() as patch:
        # It is opened four times, and each time all of its vocabulary is read; the names of all
        # tensors are made for each module.
        for name in ("GGUFReader", "get_tensor_name_map"):
            patch.setattr(gguf, name, functools.cache(getattr(gguf, name)))
        tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=gguf_path.name)
        model = AutoModelForCausalLM.from_pretrained(
            source, gguf_file=gguf_path.name, dtype=torch.float32
        )
    # What is left of that the weights were quantized: with it, it would not save them.
    model.hf_quantizer.remove_quantization_config(model)
    tokenizer.save_pretrained(unfinished)
    model.save_pretrained(unfinished)
    unfinished.rename(folder)
