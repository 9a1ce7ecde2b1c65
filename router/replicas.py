"""The engines that serve one model, and the choice of one for a prompt."""

from collections.abc import Sequence

from octavo.errors import Unavailable

from .engine import Engine
from .engine_load import short_hashes
from .served_model import EncodedPrompt, ServedModel

# What is cached counts only where there is little enough to do: FAIR_FACTOR times the outputs that
# the least loaded engine would have, were it as large, and SPARE_OUTPUTS more. Otherwise a common
# beginning of all prompts would bring them to one engine, while the others idle.
FAIR_FACTOR = 1.5
SPARE_OUTPUTS = 8

_RETRY_AFTER_S = 1.0


class Replicas:
    """What serves a name at the moment.

    Attributes:
        model: the model as all of them serve it.
    """

    def __init__(self, name: str, engines: Sequence[Engine]) -> None:
        """Engines with different models under the same name: the least loaded one decides."""
        first = min(engines, key=lambda engine: (not engine.scheduler.is_serving, _load(engine)))
        self._name = name
        self._engines = [engine for engine in engines if engine.info.path == first.info.path]
        self.model = ServedModel(first.model, [engine.info for engine in self._engines])

    def choose(self, prompt: EncodedPrompt, *, besides: Engine | None = None) -> Engine:
        """Return the engine to run a prompt on.

        It is the one with the longest prefix of the prompt in its cache; of several, the one with
        the fewest outputs for its size; of these, the one that got a request the longest ago. But
        an engine that has far more to do than another is left out, whatever is in its cache.

        Args:
            prompt: what to run.
            besides: an engine that is left out.
        Raises:
            Unavailable: none can run it now.
        """
        engines = [
            engine for engine in self._engines if engine is not besides and engine.takes(prompt)
        ]
        if not engines:
            raise Unavailable(
                f"no scheduler of model {self._name!r} can be reached or takes requests; send the"
                " request again",
                retry_after_s=_RETRY_AFTER_S,
            )
        if len(engines) == 1:
            return engines[0]
        least = min(map(_load, engines))
        engines = [engine for engine in engines if _has_room(engine, least)]
        hashes = {
            scheme: short_hashes(block_hashes)
            for scheme, block_hashes in prompt.block_hashes.items()
        }
        return min(
            engines,
            key=lambda engine: (
                -engine.load.num_cached_blocks(hashes[engine.hash_scheme]),
                _load(engine),
                engine.load.last_sent_s,
            ),
        )


def _load(engine: Engine) -> float:
    return engine.load.num_outputs_per_block


def _has_room(engine: Engine, least: float) -> bool:
    """Whether an engine has little enough to do, where the least loaded one is at `least`."""
    fair_share = FAIR_FACTOR * least * engine.load.num_blocks
    return engine.load.num_outputs <= fair_share + SPARE_OUTPUTS
