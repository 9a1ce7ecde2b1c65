"""What a model's authors advise, and what cannot be followed."""

import json
from pathlib import Path
from typing import Any

import pytest

from octavo.router.generation_config import read_generation_config
from octavo.startup import StartupError
from octavo.v1.common_pb2 import SamplingParams
from tests.router.conftest import Router
from tests.router.fake_scheduler import FakeScheduler
from tests.router.requests import generate
from tests.router.tiny_tokenizers import byte_level_tokenizer, write_directory


@pytest.fixture
def model_directory(tmp_path: Path) -> Path:
    return write(write_directory(tmp_path, byte_level_tokenizer()), {"top_k": 20, "min_p": 0.5})


def write(directory: Path, content: Any) -> Path:
    (directory / "generation_config.json").write_text(json.dumps(content))
    return directory


def test_what_is_advised_is_read(tmp_path: Path) -> None:
    content = {"temperature": 0.5, "top_p": 0.75, "top_k": 20, "repetition_penalty": 1.5}
    advice = read_generation_config(write(tmp_path, content | {"eos_token_id": 2, "min_p": None}))
    assert advice == SamplingParams(**content)  # type: ignore[arg-type]


@pytest.mark.parametrize("content", [{}, {"top_k": 0}, {"top_k": -1}, {"temperature": None}])
def test_what_advises_nothing_is_neutral(tmp_path: Path, content: dict[str, Any]) -> None:
    assert read_generation_config(write(tmp_path, content)) == SamplingParams()


def test_a_model_without_the_file_is_neutral(tmp_path: Path) -> None:
    assert read_generation_config(tmp_path / "model.gguf") == SamplingParams()


@pytest.mark.parametrize("content", [[], {"top_p": 0}, {"temperature": 9}, {"min_p": "x"}])
def test_what_cannot_be_followed_names_the_file_and_the_flag(tmp_path: Path, content: Any) -> None:
    with pytest.raises(StartupError, match=r"generation_config\.json.*--generation-config octavo"):
        read_generation_config(write(tmp_path, content))


async def test_it_fills_what_a_request_leaves_out(router: Router, scheduler: FakeScheduler) -> None:
    request = generate()
    request.options.sampling.top_k = 0
    call = router.inference.Generate(request)
    submitted = await scheduler.submitted.get()
    assert submitted.sampling == SamplingParams(temperature=1, top_p=1, top_k=0, min_p=0.5)
    call.cancel()
