"""Thousands of requests made of the OpenAPI document: none is a server error, none is left open."""

import multiprocessing
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.end_to_end.cluster import Cluster, running_cluster
from tests.end_to_end.openapi_fuzzer import Job, aimed, fuzz

pytestmark = pytest.mark.slow

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
# The dearest first, so that no process is left with one at the end.
JOBS = [
    Job("POST", COMPLETIONS, 500),
    Job("POST", CHAT, 400),
    Job("POST", CHAT, 250, is_valid=False),
    Job("POST", COMPLETIONS, 250, is_valid=False),
    Job("POST", "/tokenize", 600),
    Job("POST", "/tokenize", 300, is_valid=False),
    Job("POST", "/detokenize", 1400),
    Job("POST", "/detokenize", 300, is_valid=False),
    Job("GET", "/v1/models/{model_id}", 1000),
    *(Job("GET", path, 1) for path in ("/v1/models", "/health", "/ready", "/version", "/metrics")),
]


@pytest.fixture(scope="module")
def mock_cluster(tmp_path_factory: pytest.TempPathFactory, demo_model: Path) -> Iterator[Cluster]:
    """A real tokenizer and template; tokens that cost nothing."""
    log_path = tmp_path_factory.mktemp("mock") / "serve.log"
    flags = ["--mock", "--max-model-len", "64"]
    with running_cluster(log_path, "demo", flags) as cluster:
        yield cluster


@pytest.mark.timeout(600)
def test_five_thousand_cases_are_answered_as_described(mock_cluster: Cluster) -> None:
    document = httpx.get(mock_cluster.base_url + "/openapi.json").json()
    document = aimed(document, mock_cluster.model)
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(mp_context=spawn) as pool:
        runs = [pool.submit(fuzz, mock_cluster.base_url, document, job) for job in JOBS]
        statuses = [run.result() for run in runs]
    assert sum(statuses, Counter()).total() >= 5000
    for job, answered in zip(JOBS, statuses, strict=True):
        # Not all of them are stopped at the door.
        expected = 404 if "{" in job.path else 200 if job.is_valid else 400
        assert answered[expected] >= job.num_cases / 4, (job, answered)
    assert httpx.get(mock_cluster.base_url + "/ready").status_code == 200
    assert "Traceback" not in mock_cluster.log
