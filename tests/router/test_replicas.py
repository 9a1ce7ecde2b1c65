"""Which of several engines a prompt goes to."""

from collections.abc import Sequence

import pytest

from octavo.block_hash import extend_chain, root_hash
from octavo.errors import Unavailable
from octavo.router.engine import Engine
from octavo.router.loaded_models import LoadedModels
from octavo.router.replicas import SPARE_OUTPUTS, Replicas
from octavo.router.scheduler_client import SchedulerClient
from octavo.router.served_model import EncodedPrompt, HashScheme
from octavo.v1 import scheduling_pb2

PATH = "/models/tiny"
BLOCK_SIZES = (4, 8)


class AttachedScheduler(SchedulerClient):
    """A link that is up, and never used."""

    is_attached = True


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> LoadedModels:
    models = LoadedModels()
    # The choice never looks into the files.
    monkeypatch.setattr(models, "_models", {PATH: None, "/models/other": None})
    return models


class TestEngine(Engine):
    """An engine that says what the test wants it to."""

    __test__ = False

    def __init__(
        self,
        models: LoadedModels,
        *,
        max_model_len: int = 100,
        block_size: int = 4,
        path: str = PATH,
    ) -> None:
        super().__init__(AttachedScheduler("nowhere", bytes(16)), models)
        self.info.MergeFrom(
            scheduling_pb2.ModelInfo(
                served_names=["m"],
                path=path,
                max_model_len=max_model_len,
                block_size=block_size,
                model_hash=b"weights",
            )
        )
        self.say()

    def say(
        self,
        *,
        num_waiting: int = 0,
        num_running: int = 0,
        num_blocks: int = 100,
        cached: bytes = b"",
        is_draining: bool = False,
    ) -> None:
        self.load.update(
            scheduling_pb2.Load(
                num_waiting=num_waiting,
                num_running=num_running,
                num_blocks=num_blocks,
                cached_prefixes=b"".join(cached[i : i + 4] for i in range(0, len(cached), 16)),
                is_draining=is_draining,
            )
        )

    def submit(self, prompt: EncodedPrompt, key: bytes = b"key") -> None:
        block_hashes = prompt.block_hashes[self.hash_scheme]
        self.load.add(scheduling_pb2.SubmitRequest(request_key=key, n=1, block_hashes=block_hashes))


def prompt(token_ids: Sequence[int]) -> EncodedPrompt:
    root = root_hash(b"weights", "")
    hashes = {
        HashScheme(b"weights", size): b"".join(extend_chain(root, token_ids, size))
        for size in BLOCK_SIZES
    }
    return EncodedPrompt(list(token_ids), hashes, "", ())


PROMPT = prompt(range(40))


def hashes(prompt: EncodedPrompt, num_blocks: int, block_size: int = 4) -> bytes:
    return prompt.block_hashes[HashScheme(b"weights", block_size)][: 16 * num_blocks]


def test_the_longest_cached_prefix_decides_before_the_load(models: LoadedModels) -> None:
    idle, short, long = (TestEngine(models) for _ in range(3))
    short.say(cached=hashes(PROMPT, 2), num_running=1)
    long.say(cached=hashes(PROMPT, 3), num_running=4)
    assert Replicas("m", [idle, short, long]).choose(PROMPT) is long


def test_among_equals_the_least_loaded_for_its_size_is_chosen(models: LoadedModels) -> None:
    waiting, large, small = (TestEngine(models) for _ in range(3))
    waiting.say(num_waiting=3, num_running=1, num_blocks=100)
    large.say(num_running=5, num_blocks=200)
    small.say(num_running=3, num_blocks=100)
    assert Replicas("m", [waiting, large, small]).choose(PROMPT) is large


def test_one_after_another_they_go_round_idle_engines(models: LoadedModels) -> None:
    engines = [TestEngine(models) for _ in range(3)]
    chosen = []
    for start in range(6):
        unseen = prompt(range(100 * start, 100 * start + 8))
        engine = Replicas("m", engines).choose(unseen)
        engine.load.add(scheduling_pb2.SubmitRequest(request_key=b"key", n=1))
        engine.load.remove(b"key")
        chosen.append(engines.index(engine))  # type: ignore[arg-type]
    assert chosen == [0, 1, 2, 0, 1, 2]


def test_a_burst_spreads_before_any_engine_has_said_more(models: LoadedModels) -> None:
    engines = [TestEngine(models) for _ in range(2)]
    for number in range(20):
        unseen = prompt(range(100 * number, 100 * number + 8))
        engine = Replicas("m", engines).choose(unseen)
        key = number.to_bytes(16, "little")
        engine.load.add(scheduling_pb2.SubmitRequest(request_key=key, n=1))
    assert [engine.load.num_outputs for engine in engines] == [10, 10]


def test_a_burst_with_one_prefix_stays_together_until_another_idles(models: LoadedModels) -> None:
    engines = [TestEngine(models) for _ in range(2)]
    counts = []
    for number in range(SPARE_OUTPUTS + 2):
        engine = Replicas("m", engines).choose(PROMPT)
        assert isinstance(engine, TestEngine)
        engine.submit(PROMPT, number.to_bytes(16, "little"))
        counts.append([each.load.num_outputs for each in engines])
    assert counts[SPARE_OUTPUTS] == [SPARE_OUTPUTS + 1, 0]
    assert counts[-1] == [SPARE_OUTPUTS + 1, 1]


def test_a_cached_prefix_is_worth_some_load_where_all_are_busy(models: LoadedModels) -> None:
    with_prefix, other = TestEngine(models), TestEngine(models)
    replicas = Replicas("m", [with_prefix, other])
    other.say(num_running=100)
    with_prefix.say(num_running=150 + SPARE_OUTPUTS, cached=hashes(PROMPT, 1))
    assert replicas.choose(PROMPT) is with_prefix
    with_prefix.say(num_running=151 + SPARE_OUTPUTS, cached=hashes(PROMPT, 1))
    assert replicas.choose(PROMPT) is other


def test_each_engine_is_asked_in_its_own_blocks(models: LoadedModels) -> None:
    small, large = TestEngine(models, block_size=4), TestEngine(models, block_size=8)
    # Blocks of the other's size are none of its own.
    small.say(cached=hashes(PROMPT, 3, block_size=8))
    large.say(cached=hashes(PROMPT, 1, block_size=8), num_running=1)
    assert Replicas("m", [small, large]).choose(PROMPT) is large


def test_a_prompt_goes_where_the_context_holds_it(models: LoadedModels) -> None:
    short, long = TestEngine(models, max_model_len=40), TestEngine(models, max_model_len=41)
    long.say(num_running=5)
    replicas = Replicas("m", [short, long])
    assert replicas.model.info.max_model_len == 41
    assert replicas.choose(PROMPT) is long
    assert replicas.choose(prompt(range(39))) is short


def test_the_drained_and_the_dead_are_left_out(models: LoadedModels) -> None:
    dead = Engine(SchedulerClient("nowhere", bytes(16)), models)
    drained, good = TestEngine(models), TestEngine(models)
    dead.info = good.info
    drained.say(cached=hashes(PROMPT, 5), is_draining=True)
    replicas = Replicas("m", [dead, drained, good])
    assert replicas.choose(PROMPT) is good
    with pytest.raises(Unavailable, match="no scheduler of model 'm'") as error:
        replicas.choose(PROMPT, besides=good)
    assert error.value.retry_after_s is not None


def test_engines_with_other_models_under_the_name_are_no_replicas(models: LoadedModels) -> None:
    busy, other = TestEngine(models), TestEngine(models, path="/models/other")
    busy.say(num_running=1, cached=hashes(PROMPT, 5))
    assert Replicas("m", [busy, other]).choose(PROMPT) is other
    other.say(is_draining=True)
    assert Replicas("m", [busy, other]).choose(PROMPT) is busy
