"""Models are read once, and closed when nobody serves them any more."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from octavo.router.engine import Engine
from octavo.router.loaded_model import LoadedModel
from octavo.router.loaded_models import LoadedModels
from octavo.router.scheduler_client import SchedulerClient
from octavo.startup import StartupError
from octavo.v1 import scheduling_pb2
from tests.router.tiny_tokenizers import byte_level_tokenizer, write_directory


async def test_replicas_share_one_model_for_as_long_as_one_is_left(
    model_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = []

    async def close(model: LoadedModel) -> None:
        closed.append(model)
        assert model.chat_template is not None
        await model.chat_template.close()

    monkeypatch.setattr(LoadedModel, "close", close)
    models, path = LoadedModels(), str(model_directory)
    await asyncio.gather(models.acquire(path), models.acquire(path))
    model = models[path]
    await models.release(path)
    assert models[path] is model
    assert not closed
    await models.release(path)
    assert closed == [model]
    with pytest.raises(KeyError):
        models[path]


async def test_an_engine_goes_from_one_model_to_another_and_keeps_none(
    model_info: scheduling_pb2.ModelInfo, tmp_path: Path
) -> None:
    models = LoadedModels()
    other = scheduling_pb2.ModelInfo()
    other.CopyFrom(model_info)
    other.path = str(write_directory(tmp_path, byte_level_tokenizer()))
    seen = []

    class ChangingScheduler(SchedulerClient):
        async def run(
            self,
            on_attached: Callable[[scheduling_pb2.ModelInfo], Awaitable[None]],
            on_change: Callable[[], Awaitable[None]],
        ) -> None:
            for info in (model_info, model_info, other):
                await on_attached(info)
                seen.append(engine.model)

    engine = Engine(ChangingScheduler("nowhere", bytes(16)), models)
    await engine.run(nothing)
    assert seen[0] is seen[1] is not seen[2]
    for path in (model_info.path, other.path):
        with pytest.raises(KeyError):
            models[path]


async def nothing() -> None:
    pass


async def test_a_model_that_cannot_be_read_is_not_kept(tmp_path: Path) -> None:
    models = LoadedModels()
    for _ in range(2):
        with pytest.raises(StartupError, match="tokenizer.json"):
            await models.acquire(str(tmp_path))
