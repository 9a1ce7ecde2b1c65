"""All engines behind this router, by the names of their models."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import structlog

from octavo.errors import InvalidArgument, NotFound, Unavailable
from octavo.startup import StartupError

from .engine import Engine
from .replicas import Replicas

_RETRY_AFTER_S = 1.0

log = structlog.get_logger()


class EngineCatalog:
    """Finds what serves a name; engines with a name in common are replicas."""

    def __init__(self, engines: Sequence[Engine]) -> None:
        self._engines = engines

    @property
    def is_serving(self) -> bool:
        """Whether there is an engine that takes requests."""
        return any(engine.scheduler.is_serving for engine in self._engines)

    def names(self) -> list[str]:
        """Return the names that are served, also those whose engines are away at the moment."""
        names = [name for engine in self._engines for name in engine.info.served_names]
        return list(dict.fromkeys(names))

    def find(self, name: str) -> Replicas:
        """Return the engines that serve a name, also if they are away at the moment.

        Without a name: those of the one model that is served.

        Raises:
            InvalidArgument: there is no name, but several models are served.
            NotFound: no engine does; names the models that are served.
            Unavailable: no engine has been attached yet.
        """
        name = name or self._only_name()
        engines = self._serving(name)
        if engines:
            return Replicas(name, engines)
        served = self.names()
        if not served:
            raise Unavailable(
                "the model is still loading; send the request again", retry_after_s=_RETRY_AFTER_S
            )
        raise NotFound(
            f"model {name!r} is not served here; served: {', '.join(map(repr, served))}",
            field="model",
        )

    def _serving(self, name: str) -> list[Engine]:
        return [engine for engine in self._engines if name in engine.info.served_names]

    def _only_name(self) -> str:
        """Return a name of the model, if there is just one; empty: none is loaded yet."""
        served = self.names()
        num_loaded = sum(bool(engine.info.served_names) for engine in self._engines)
        if served and len(self._serving(served[0])) < num_loaded:
            raise InvalidArgument(
                f"model is missing, and several are served: {', '.join(map(repr, served))};"
                " name one",
                field="model",
            )
        return served[0] if served else ""

    async def run(self, on_change: Callable[[], Awaitable[None]]) -> None:
        """Keep every engine attached; one that cannot be used is left out while others can.

        Args:
            on_change: awaited when an engine begins or ceases to serve.
        Raises:
            StartupError: none can be used; says why the last one cannot.
        """
        running = {asyncio.create_task(engine.run(on_change)): engine for engine in self._engines}
        pending = set(running)
        try:
            while True:
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for ended in done:
                    error = ended.exception()
                    if not pending or not isinstance(error, StartupError):
                        ended.result()
                    address = running[ended].scheduler.address
                    log.error("scheduler left out", scheduler=address, reason=str(error))
        finally:
            for task in pending:
                task.cancel()
            await asyncio.gather(*pending, return_exceptions=True)
