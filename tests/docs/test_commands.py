"""Every command of the documents is run as it stands there, against the cluster that they start.

Commands of Octavo find ports and sizes in the environment, as the README says they can.
`SUBSTITUTIONS` is all that is changed in the others, `NOT_RUN` all that is left out.
"""

import re
from collections.abc import Iterator, Mapping

import pytest

from tests.docs.commands import LANGUAGES, Command, blocks, commands, documents
from tests.docs.reader import Reader, served

# Part of a command, and what stands in its place; {port} and {grpc_port} are free ones.
SUBSTITUTIONS = {
    "127.0.0.1:8000": "127.0.0.1:{port}",
    "127.0.0.1:50051": "127.0.0.1:{grpc_port}",
    "plan MODEL": "plan demo",
    "keys secrets": "keys {folder}/secrets",
    # Less to compute: a story and a benchmark can be long.
    "stream=True": "stream=True, max_tokens=16",
    "bench_offline": "bench_offline --num-requests 2 --input-len 16 --output-len 4",
    "bench_scheduler_step": "bench_scheduler_step --num-running 8",
    "bench_step_gap": "bench_step_gap --num-running 1",
    # Writes what is committed.
    "plot_scheduler_step": "plot_scheduler_step --svg-path {folder}/scheduler_step.svg",
    "--mock-only": "--mock-only --num-streams 2 --output-len 8 --rounds 1",
    # Fails, for the cluster has the ports.
    "octavo doctor": "! octavo doctor",
    # Says nothing if it works.
    "source .venv/bin/activate": "source .venv/bin/activate && command -v octavo",
}

# The first line of a command, and patterns that its output has to match.
EXPECTED = {
    ".venv/bin/pytest tests/scheduler/test_planning.py -k preempt": [r"\d+ passed"],
    "buf curl --protocol grpc --http2-prior-knowledge"
    " http://127.0.0.1:50051/octavo.v1.Inference/Chat": [r'"started"', r'"text": "', r'"usage"'],
    "curl http://127.0.0.1:8000/v1/chat/completions -H 'Content-Type: application/json'": [
        r'"content":"[^"]*Paris'
    ],
    "from octavo import LLM, SamplingParams": [r"The capital of France is .*Paris"],
    "from openai import OpenAI": [r"\w+ \w+"],
    "octavo bench latency": [r'"batch_size": 2', r'"output_tokens_per_second"', r'"latency_ms"'],
    "octavo bench serve": [r'"output_tokens": 8', r'"ttft_ms"', r'"itl_ms"', r'"tpot_ms"'],
    "octavo bench throughput": [r'"output_tokens": 8', r'"total_tokens_per_second"'],
    "octavo chat": [r"The capital of France is Paris"],
    'octavo complete "Once upon a time"': [r"\w+ \w+"],
    "octavo config show --origin": [
        r"--port +{port} .*OCTAVO_PORT",
        r"--max-num-seqs +\d+ +default",
    ],
    "octavo doctor": [r"ok +kernels", r"port +{port} on \S+ is in use", r"fix: .*--port"],
    "octavo health http://127.0.0.1:8000/ready": [r"^ready$"],
    "octavo keys secrets": [r"secrets/scheduler\.key\n", r"secrets/worker\.pub\n"],
    "octavo plan MODEL": [
        r"weights +[\d.]+ GB",
        r"KV cache +[\d.]+ GB",
        r"requests at once\n +512 ",
    ],
    "octavo serve --help": [r"--max-num-seqs", r"--kv-cache-memory-bytes"],
    "python -m benchmarks.bench_offline": [r"octavo +[\d.]+ output tok/s", r"ratio +[\d.]+"],
    "python -m benchmarks.bench_paged_attention --threads 2": [r"bfloat16 +64 +256 +1 +9/3x64"],
    "python -m benchmarks.bench_serving_path --mock-only": [r"router +[\d.]+ us of CPU a token"],
    "python -m benchmarks.bench_scheduler_step": [r"\n +8 "],
    "python -m benchmarks.bench_step_gap": [r"ahead %.*\n(.*\n)*? +1 "],
    "python -m benchmarks.plot_scheduler_step": [r"\n\| 4,096 \|"],
    "source .venv/bin/activate": [r"\.venv/bin/octavo"],
}

_PEER = "installs a peer, hundreds of megabytes and minutes of compiling"

NOT_RUN = {
    "buf lint": "a part of `make check`",
    "cd ~/.cache/octavo/peers/models"
    " && cp ~/.cache/octavo/models/SmolLM2-135M-Instruct.Q4_1.gguf q4_1.gguf": _PEER,
    "cd ~/.cache/octavo/peers/vllm/lib/python3.*/site-packages"
    " && mkdir vllm-0.32.0+cpu.dist-info": _PEER,
    "docker compose --profile cpu up --build --wait": "tests/deploy runs it with no engine",
    "make aot": "tests/benchmarks/test_aot_table.py compiles for one of them",
    "make check": "CI runs it before the tests",
    "make format": "would change the tree",
    "make gpu-check": "needs a GPU",
    "make gpu-tune": "needs a GPU",
    "make gpu-wheels": "fetches 20 MB; tests/benchmarks/test_gpu_wheels.py checks what",
    "make install": "CI runs it before the tests",
    "make protos": "would change the tree; tests/test_layout.py makes the same code elsewhere",
    "make serve": "runs while all the others do",
    "make test": "is this",
    "make test-fast": "is the first half of `make test`",
    "octavo plan": "the words for `octavo plan MODEL`",
    "octavo router --scheduler ADDRESS --scheduler ADDRESS": "in tests/end_to_end",
    "octavo serve": "the words for `make serve`'s command",
    "octavo serve MODEL": "what `make serve` runs",
    "octavo serve demo": "what `make serve` runs",
    "pip download --no-deps --no-binary :all: llama-cpp-python==0.3.36"
    " && tar xf llama_cpp_python-*.tar.gz && cd llama_cpp_python-*/vendor/llama.cpp": _PEER,
    "python -m benchmarks.bench_mixed": "takes minutes",
    "python -m benchmarks.bench_paged_attention --threads 1": "is run with `--threads 2`",
    "python -m benchmarks.bench_perplexity": "takes minutes",
    "python -m benchmarks.bench_perplexity --kv-cache-dtype int8": "takes minutes",
    "python -m benchmarks.peers.export_model ~/.cache/octavo/peers/models/bf16": _PEER,
}

# What is typed where a command asks.
TYPED = {"octavo chat": ["What is the capital of France?", "/exit"]}

# Flags from the environment; each command takes those it has.
SIZES = {
    "OCTAVO_TEMPERATURE": "0", "OCTAVO_MAX_TOKENS": "16",
    "OCTAVO_INPUT_LEN": "8", "OCTAVO_OUTPUT_LEN": "4",
    "OCTAVO_NUM_PROMPTS": "2", "OCTAVO_BATCH_SIZE": "2", "OCTAVO_NUM_ITERS": "1",
}  # fmt: skip

ALL = [command for document in documents() for command in commands(document)]
RUN = list({command.text: command for command in ALL if command.name not in NOT_RUN}.values())


def test_every_block_names_its_language() -> None:
    unnamed = [
        block.place
        for document in documents()
        for block in blocks(document)
        if block.language not in LANGUAGES
    ]
    assert unnamed == []


def test_every_command_is_run_or_says_why_not() -> None:
    """And nothing is kept here that the documents no longer say."""
    found = {command.name for command in ALL}
    assert found == set(EXPECTED) | set(NOT_RUN)
    for part in SUBSTITUTIONS:
        assert any(part in command.text for command in ALL), part


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Reader, str]]:
    with served(tmp_path_factory.mktemp("docs"), SIZES) as reader_and_announcement:
        yield reader_and_announcement


@pytest.mark.slow
def test_serve_ends_with_the_addresses_and_a_request_to_paste(serving: tuple[Reader, str]) -> None:
    reader, announcement = serving
    assert f"REST  http://127.0.0.1:{reader.names['{port}']}/v1\n" in announcement
    assert f"gRPC  127.0.0.1:{reader.names['{grpc_port}']}\n" in announcement
    pasted = announcement[announcement.index("curl ") :].partition("\n")[0]
    assert "Paris" in reader.shell(pasted)


@pytest.mark.slow
@pytest.mark.parametrize("command", [pytest.param(each, id=each.name) for each in RUN])
def test_a_command_answers_as_the_documents_say(
    serving: tuple[Reader, str], command: Command
) -> None:
    reader, _ = serving
    text = replaced(replaced(command.text, SUBSTITUTIONS), reader.names)
    if command.name in TYPED:
        output = reader.conversation(text, TYPED[command.name])
    else:
        output = reader.python(text) if command.is_python else reader.shell(text)
    output += reader.take_results()
    for pattern in EXPECTED[command.name]:
        assert re.search(replaced(pattern, reader.names), output), f"{command.place}:\n{output}"


def replaced(text: str, substitutions: Mapping[str, str]) -> str:
    for part, substitute in substitutions.items():
        text = text.replace(part, substitute)
    return text
