"""A scheduler with the model it serves, and the choice of one for a request."""

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from octavo.errors import NotFound, Unavailable
from octavo.v1 import scheduling_pb2

from .scheduler_client import SchedulerClient
from .served_model import ServedModel

_RETRY_AFTER_S = 1.0


class Engine:
    """A scheduler and its model.

    Attributes:
        model: what the scheduler serves; None until it was attached for the first time.
    """

    def __init__(
        self,
        scheduler: SchedulerClient,
        chat_template_path: Path | None,
        *,
        reads_generation_config: bool = True,
    ) -> None:
        self.scheduler = scheduler
        self.model: ServedModel | None = None
        self._chat_template_path = chat_template_path
        self._reads_generation_config = reads_generation_config

    async def run(self, set_serving: Callable[[bool], Awaitable[None]]) -> None:
        """Stay attached to the scheduler; tells `set_serving` whether requests can be served.

        Raises:
            StartupError: the model's files cannot be used, or the scheduler is another version.
        """

        async def attached(info: scheduling_pb2.ModelInfo) -> None:
            await self._update_model(info)
            await set_serving(True)

        try:
            await self.scheduler.run(attached, lambda: set_serving(False))
        finally:
            if self.model is not None:
                await self.model.close()

    async def _update_model(self, info: scheduling_pb2.ModelInfo) -> None:
        """Read the model's files, unless a new scheduler serves the same model as the last."""
        if self.model is not None:
            if self.model.info.path == info.path:
                self.model.info = info
                return
            await self.model.close()
        self.model = await ServedModel.load(
            info,
            self._chat_template_path,
            reads_generation_config=self._reads_generation_config,
        )


class EngineCatalog:
    """All engines behind this router, by the names of their models."""

    def __init__(self, engines: Sequence[Engine]) -> None:
        self._engines = engines

    def models(self) -> list[ServedModel]:
        return [engine.model for engine in self._engines if engine.model is not None]

    def find(self, name: str) -> tuple[Engine, ServedModel]:
        """Return the engine that serves a model, and the model.

        Raises:
            NotFound: no engine does; names the models that are served.
            Unavailable: no engine has been attached yet.
        """
        for engine in self._engines:
            if engine.model is not None and name in engine.model.info.served_names:
                return engine, engine.model
        served = [name for model in self.models() for name in model.info.served_names]
        if not served:
            raise Unavailable(
                "the model is still loading; send the request again", retry_after_s=_RETRY_AFTER_S
            )
        raise NotFound(
            f"model {name!r} is not served here; served: {', '.join(map(repr, served))}",
            field="model",
        )
