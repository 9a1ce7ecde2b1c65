"""A scheduler, and the model it serves."""

from collections.abc import Awaitable, Callable

from octavo.v1 import scheduling_pb2

from .engine_load import EngineLoad
from .loaded_model import LoadedModel
from .loaded_models import LoadedModels
from .scheduler_client import SchedulerClient
from .served_model import EncodedPrompt, HashScheme


class Engine:
    """One of the engines behind this router.

    Attributes:
        info: what the scheduler serves; without names until it was attached for the first time.
    """

    def __init__(self, scheduler: SchedulerClient, models: LoadedModels) -> None:
        self.scheduler = scheduler
        self.info = scheduling_pb2.ModelInfo()
        self._models = models

    @property
    def load(self) -> EngineLoad:
        return self.scheduler.load

    @property
    def model(self) -> LoadedModel:
        """What it serves, once it has names."""
        return self._models[self.info.path]

    @property
    def hash_scheme(self) -> HashScheme:
        return HashScheme.of(self.info)

    def takes(self, prompt: EncodedPrompt) -> bool:
        """Whether a prompt can be run here, now."""
        return (
            self.scheduler.is_serving
            and self.hash_scheme in prompt.block_hashes
            and len(prompt.token_ids) < self.info.max_model_len
        )

    async def run(self, on_change: Callable[[], Awaitable[None]]) -> None:
        """Stay attached to the scheduler; `on_change` is awaited when it begins or ceases to serve.

        Raises:
            StartupError: the model's files cannot be used, or the scheduler is another version.
        """
        try:
            await self.scheduler.run(self._learn, on_change)
        finally:
            await self._set_info(scheduling_pb2.ModelInfo())

    async def _learn(self, info: scheduling_pb2.ModelInfo) -> None:
        """Read the model's files; a new scheduler mostly serves the same model as the last."""
        await self._models.acquire(info.path)
        await self._set_info(info)

    async def _set_info(self, info: scheduling_pb2.ModelInfo) -> None:
        before, self.info = self.info, info
        if before.served_names:
            await self._models.release(before.path)
