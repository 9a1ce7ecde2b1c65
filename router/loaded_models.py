"""The models behind a router: each is read once, however many engines serve it."""

import asyncio
from collections import Counter
from pathlib import Path

from .loaded_model import LoadedModel


class LoadedModels:
    """Models by path, for as long as somebody has acquired them."""

    def __init__(
        self, chat_template_path: Path | None = None, *, reads_generation_config: bool = True
    ) -> None:
        """`chat_template_path`: a template that replaces the models' own."""
        self._chat_template_path = chat_template_path
        self._reads_generation_config = reads_generation_config
        self._models: dict[str, LoadedModel] = {}
        self._num_users: Counter[str] = Counter()
        self._turn = asyncio.Lock()

    def __getitem__(self, path: str) -> LoadedModel:
        """Return a model that was acquired."""
        return self._models[path]

    async def acquire(self, path: str) -> None:
        """Read a model, unless it has been; raises StartupError."""
        async with self._turn:
            if path not in self._models:
                self._models[path] = await LoadedModel.load(
                    Path(path),
                    self._chat_template_path,
                    reads_generation_config=self._reads_generation_config,
                )
            self._num_users[path] += 1

    async def release(self, path: str) -> None:
        """Close a model that nobody else has acquired."""
        async with self._turn:
            self._num_users[path] -= 1
            if not self._num_users[path]:
                await self._models.pop(path).close()
