"""Models are read once, and closed when nobody serves them any more."""

import asyncio
from pathlib import Path

import pytest

from octavo.router.loaded_model import LoadedModel
from octavo.router.loaded_models import LoadedModels
from octavo.startup import StartupError


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


async def test_a_model_that_cannot_be_read_is_not_kept(tmp_path: Path) -> None:
    models = LoadedModels()
    for _ in range(2):
        with pytest.raises(StartupError, match="tokenizer.json"):
            await models.acquire(str(tmp_path))
