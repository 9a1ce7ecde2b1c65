"""What a process says of its start: on the pipe of `octavo serve`, or else in its log."""

import json
import os
import subprocess
import sys
from collections.abc import Callable

import pytest
import structlog

from octavo.startup import StartupReport

SERVICE = """
import gc
from octavo.settings import ProcessSettings
from octavo.startup import run_service

async def serve(settings, report):
    made_by_the_start = [[] for _ in range(1000)]
    before = gc.get_freeze_count()
    report.ready()
    frozen = gc.get_freeze_count()
    made_later = [[] for _ in range(1000)]
    report.ready()
    print(before, frozen > 1000, gc.get_freeze_count() <= frozen)

run_service(ProcessSettings(), serve)
"""


def start_twice(report: StartupReport) -> None:
    """Start, and do once more what is done again later, as a router does that was detached."""
    for _ in range(2):
        report.stage("listening")
        report.ready("here")


def test_stages_go_to_the_pipe_until_the_process_is_ready() -> None:
    read_fd, write_fd = os.pipe()
    with structlog.testing.capture_logs() as logged:
        start_twice(StartupReport(write_fd))
    with open(read_fd) as pipe:
        stage, ready = map(json.loads, pipe)
    assert stage["stage"] == "listening" and stage["seconds"] >= 0
    assert ready == {"ready": "here"}
    assert logged == []


def test_without_a_pipe_stages_go_to_the_log() -> None:
    with structlog.testing.capture_logs() as logged:
        start_twice(StartupReport(None))
    assert [entry["event"] for entry in logged] == ["listening", "ready"]


@pytest.mark.parametrize(
    ("end", "message"),
    [(StartupReport.ready, {"ready": "text"}), (StartupReport.failed, {"failed": "text"})],
)
def test_the_end_closes_the_pipe(
    end: Callable[[StartupReport, str], None], message: dict[str, str]
) -> None:
    read_fd, write_fd = os.pipe()
    end(StartupReport(write_fd), "text")
    with open(read_fd) as pipe:
        assert json.loads(pipe.read()) == message
    with pytest.raises(OSError):
        os.fstat(write_fd)


def test_collections_leave_out_what_the_start_made_and_nothing_else() -> None:
    service = subprocess.run(
        [sys.executable, "-c", SERVICE], check=True, capture_output=True, text=True
    )
    assert service.stdout.split() == ["0", "True", "True"]
