"""benchmarks.peers.process_group: an engine is stopped once it rests."""

import sys
from pathlib import Path

from benchmarks.peers.process_group import ProcessGroup

# Ends its turn, and then goes on to compute for a while.
ENGINE = """
import pathlib, sys, time

print("turn is over", flush=True)
while time.process_time() < 1.0:
    pass
pathlib.Path(sys.argv[1]).touch()
time.sleep(600)
"""


def test_what_an_engine_does_after_its_turn_is_done_when_it_is_stopped(tmp_path: Path) -> None:
    done, command = tmp_path / "done", [sys.executable, "-c", ENGINE]
    group = ProcessGroup([*command, str(done)], {}, tmp_path / "engine.log", is_driven=True)
    try:
        assert group.process.stdout is not None
        assert group.process.stdout.readline() == "turn is over\n"
        group.pause()
        assert done.exists()
    finally:
        group.stop()
