"""What is compared with what, a line for each workload of the table, and how long that takes."""

from collections.abc import Mapping
from dataclasses import dataclass

from .workloads import WORKLOADS, OfflineWorkload, ServedWorkload, Workload

OURS = "octavo"


@dataclass(frozen=True, slots=True)
class Comparison:
    """Engines that take turns at one workload, in one run."""

    workload: Workload
    engines: tuple[str, ...]
    rounds: int
    """Of A B B A."""

    def pairs(self) -> list[tuple[str, str]]:
        """Return each format of ours with each engine of theirs."""
        ours = [name for name in self.engines if name.startswith(f"{OURS}:")]
        return [(a, b) for a in ours for b in self.engines if b not in ours]


def _line(name: str, scale: float, rounds: int, engines: str) -> Comparison:
    return Comparison(WORKLOADS[name].scaled(scale), tuple(engines.split()), rounds)


TABLE = (
    _line(
        "W1",
        1.0,
        2,
        "octavo:bf16 octavo:int8 vllm:bf16 vllm:w8a8 llama.cpp:bf16 llama.cpp:q8_0",
    ),
    _line("W3", 1.0, 2, "octavo:bf16 vllm:bf16"),
    _line("W4", 0.25, 2, "octavo:bf16 octavo:int8 vllm:bf16 llama.cpp:bf16 llama.cpp:q8_0"),
    _line("W5", 1.0, 3, "octavo:bf16 vllm:bf16"),
    _line("W6", 0.4, 3, "octavo:bf16 vllm:bf16"),
    _line(
        "W7",
        1.0,
        3,
        "octavo:bf16 octavo:int8 octavo:int4 octavo:q4_1 octavo:q4_0 octavo:q8_0 "
        "vllm:bf16 llama.cpp:bf16 llama.cpp:q8_0 llama.cpp:q4_0 llama.cpp:q4_1",
    ),
    _line("S1", 1.0, 2, "octavo:bf16 octavo:int8 vllm:bf16"),
    _line("S16", 0.67, 2, "octavo:bf16 octavo:int8 vllm:bf16"),
    _line("S64", 0.5, 2, "octavo:bf16 octavo:int8 vllm:bf16"),
)
"""Those whose bars need them; others by --workloads and --engines. Two rounds of what is long."""


@dataclass(frozen=True, slots=True)
class Pace:
    """What to expect of an engine on two Zen 4 cores; for planning only."""

    prefill_tokens_per_s: float
    decode_tokens_per_s: float
    stream_tokens_per_s: float
    start_s: float
    server_start_s: float


_PACES: Mapping[str, Pace] = {
    "octavo:bf16": Pace(1700, 800, 100, 8, 12),
    "octavo:int8": Pace(3000, 1500, 180, 8, 12),
    "octavo": Pace(2000, 1000, 200, 8, 12),
    "vllm": Pace(1300, 760, 54, 65, 105),
    "llama.cpp:bf16": Pace(1050, 588, 105, 0, 3),
    "llama.cpp:q8_0": Pace(800, 483, 166, 0, 3),
    "llama.cpp:q4_0": Pace(960, 517, 240, 0, 3),
    "llama.cpp": Pace(314, 213, 116, 0, 3),
    "transformers": Pace(800, 130, 23, 15, 0),
}
_MANY_STREAMS = 8
"""From so many on, an engine is taken to decode as fast as it can."""
_SERVED_SHARE = 0.6
"""Of an engine's pace that is left when it is served."""
_CLIENT_START_S = 10.0
_CLIENT_TURN_S = 2.0
"""For prompts and a tokenizer, before the first request."""
_LLAMA_CPP_LOAD_S = 2.0


def pace_of(engine: str) -> Pace:
    return _PACES.get(engine) or _PACES[engine.partition(":")[0]]


def turn_s(workload: Workload, engine: str) -> float:
    """Return the seconds that one turn should take."""
    pace = pace_of(engine)
    prompt_tokens = workload.num_requests * workload.input_len
    output_tokens = workload.num_requests * workload.output_len
    streams = workload.num_requests
    if isinstance(workload, ServedWorkload):
        streams = min(streams, workload.concurrency)
    decode_rate = min(pace.decode_tokens_per_s, pace.stream_tokens_per_s * streams)
    if streams >= _MANY_STREAMS:
        decode_rate = pace.decode_tokens_per_s
    seconds = prompt_tokens / pace.prefill_tokens_per_s + output_tokens / decode_rate
    if isinstance(workload, ServedWorkload):
        return seconds / _SERVED_SHARE + _CLIENT_TURN_S
    return seconds + (_LLAMA_CPP_LOAD_S if engine.startswith("llama.cpp") else 0.0)


def start_s(comparisons: list[Comparison]) -> float:
    """Return the seconds that starting all engines should take, each once."""
    offline = {e for c in comparisons if isinstance(c.workload, OfflineWorkload) for e in c.engines}
    served = {e for c in comparisons if isinstance(c.workload, ServedWorkload) for e in c.engines}
    seconds = sum(pace_of(engine).start_s for engine in offline)
    seconds += sum(pace_of(engine).server_start_s for engine in served)
    return seconds + (_CLIENT_START_S if served else 0.0)
