"""octavo.bench_serve: what it sends and what it counts, against a server of the tests' own."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from octavo import bench_serve
from octavo.bench_report import spread_ms
from octavo.bench_serve import BenchServeSettings, Measured, summarize
from octavo.bench_workload import make_workload
from octavo.startup import StartupError
from tests.octavo.fake_openai import FakeOpenAI


@pytest.fixture
def server() -> Iterator[FakeOpenAI]:
    with FakeOpenAI().serving() as fake:
        yield fake


def run(tmp_path: Path, **flags: Any) -> tuple[int, dict[str, Any]]:
    """Run the command; return its exit status and what it wrote."""
    path = tmp_path / "results.json"
    status = bench_serve.main(settings=BenchServeSettings(output_json=path, **flags))
    return status, json.loads(path.read_text())


def test_every_request_is_sent_and_its_tokens_are_those_of_the_usage(
    server: FakeOpenAI, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = {"url": server.url, "num_prompts": 5, "input_len": 9, "output_len": 4}
    status, results = run(tmp_path, **flags)
    assert status == 0
    assert (results["completed"], results["failed"]) == (5, 0)
    # The fake says 7 tokens in and 3 out, whatever it was asked.
    assert (results["input_tokens"], results["output_tokens"]) == (35, 15)
    assert set(results["ttft_ms"]) == {"mean", "p50", "p99"}
    assert {"output_tokens_per_second", "total_tokens_per_second", "itl_ms", "tpot_ms"} <= set(
        results
    )
    for body in server.requests:
        assert len(body["prompt"]) == 9 and body["max_tokens"] == 4 and body["ignore_eos"]
    assert "output_tokens_per_second" in capsys.readouterr().out


def test_no_more_requests_run_at_once_than_was_said(server: FakeOpenAI, tmp_path: Path) -> None:
    flags = {"url": server.url, "num_prompts": 12, "max_concurrency": 2}
    status, _ = run(tmp_path, request_rate=1000.0, **flags)
    assert status == 0
    assert server.most_at_once <= 2 and len(server.requests) == 12


@pytest.mark.parametrize(
    ("fault", "complaint"),
    [
        ({"refuse": (503, "the server is draining.")}, "3 requests failed, the first: the server"),
        ({"sends_usage": False}, "sent no usage"),
        ({"breaks_off": True}, "broke off"),
    ],
)
def test_what_failed_is_counted_and_told(
    server: FakeOpenAI,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    fault: dict[str, Any],
    complaint: str,
) -> None:
    vars(server).update(fault)
    status, results = run(tmp_path, url=server.url, num_prompts=3)
    assert status == 1
    assert (results["completed"], results["failed"], results["ttft_ms"]) == (0, 3, None)
    assert complaint in capsys.readouterr().err


def test_a_file_that_cannot_be_written_is_told_before_anything_is_sent(
    server: FakeOpenAI, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = BenchServeSettings(url=server.url, output_json=tmp_path / "none" / "x.json")
    assert bench_serve.main(settings=settings) == 1
    assert "--output-json" in capsys.readouterr().err
    assert server.requests == []


def test_the_results_are_those_one_computes_by_hand() -> None:
    quick = Measured(0.1, 0.5, [0.1, 0.3], num_input_tokens=10, num_output_tokens=5)
    slow = Measured(0.3, 0.3, [], num_input_tokens=20, num_output_tokens=1)
    failed = Measured(9.0, 9.0, [9.0], num_output_tokens=99, error="gone")
    results = summarize([quick, slow, failed], duration_s=2.0)
    assert results["output_tokens_per_second"] == 3.0
    assert results["total_tokens_per_second"] == 18.0
    assert results["requests_per_second"] == 1.0
    assert results["ttft_ms"] == {"mean": 200.0, "p50": 100.0, "p99": 300.0}
    assert results["itl_ms"] == {"mean": 200.0, "p50": 100.0, "p99": 300.0}
    assert results["tpot_ms"] == {"mean": 100.0, "p50": 100.0, "p99": 100.0}


def test_percentiles_are_values_that_occurred() -> None:
    spread = spread_ms([i / 1000 for i in range(200, 0, -1)])
    assert spread == {"mean": 100.5, "p50": 100.0, "p99": 198.0}


def test_random_prompts_depend_on_the_seed_and_nothing_else() -> None:
    def draw(seed: int) -> list[Any]:
        return make_workload("random", num_prompts=3, input_len=4, output_len=5, seed=seed)

    assert draw(1) == draw(1) != draw(2)
    assert len({tuple(each.prompt) for each in draw(1)}) == 3


@pytest.mark.parametrize("vocab_size", [1, 2, 96, 5000])
def test_random_prompts_keep_within_a_small_vocabulary(vocab_size: int) -> None:
    (prompt,) = make_workload(
        "random", num_prompts=1, input_len=500, output_len=1, seed=0, vocab_size=vocab_size
    )
    assert len(prompt.prompt) == 500 and max(map(int, prompt.prompt)) < vocab_size


def test_conversations_give_the_question_and_as_long_an_answer(tmp_path: Path) -> None:
    def conversation(*texts: str) -> dict[str, Any]:
        return {"conversations": [{"from": "human", "value": text} for text in texts]}

    path = tmp_path / "sharegpt.json"
    records = [
        conversation("What is the capital?", "a" * 80, "And of Italy?"),
        conversation("Tell me a long story.", "b" * 400),
        conversation("No answer was kept."),
        conversation("Hi", "too short a question"),
        conversation("c" * 5000, "too long a question"),
        conversation("too long an answer", "d" * 9000),
    ]
    path.write_text(json.dumps(records))

    def lengths(seed: int) -> list[tuple[Any, int]]:
        made = make_workload(str(path), num_prompts=2, input_len=1, output_len=1, seed=seed)
        return [(each.prompt, each.output_len) for each in made]

    assert sorted(lengths(0)) == [("Tell me a long story.", 100), ("What is the capital?", 20)]
    assert {tuple(lengths(seed)) for seed in range(9)} == {
        tuple(lengths(0)),
        tuple(reversed(lengths(0))),
    }


def test_a_file_gives_prompts_and_lengths_and_is_repeated(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "one", "output_tokens": 2}\n\n{"prompt": "two"}\n')
    prompts = make_workload(str(path), num_prompts=3, input_len=4, output_len=5, seed=0)
    assert [(each.prompt, each.output_len) for each in prompts] == [
        ("one", 2),
        ("two", 5),
        ("one", 2),
    ]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "cannot be read"),
        ("\n", "holds no prompts"),
        ('{"prompt": "a"}\n{"text": "b"}\n', "line 2: give one object a line"),
        ('{"prompt": 3}\n', "line 1: prompt must be a text"),
        ('{"prompt": "a", "output_tokens": 0}\n', "whole number of at least 1"),
        ("3\n", "line 1: give one object a line"),
        ("[]\n", "holds no prompts"),
        ('[{"text": "a"}]', "not a list of ShareGPT conversations"),
        ('[{"conversations"', "not a list of ShareGPT conversations"),
    ],
)
def test_a_file_that_cannot_be_used_says_where(
    tmp_path: Path, content: str | None, complaint: str
) -> None:
    path = tmp_path / "prompts.jsonl"
    if content is not None:
        path.write_text(content)
    with pytest.raises(StartupError, match=complaint):
        make_workload(str(path), num_prompts=1, input_len=1, output_len=1, seed=0)
