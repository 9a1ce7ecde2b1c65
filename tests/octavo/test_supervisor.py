"""octavo.supervisor with real processes that are none of ours: starts, ends, restarts, drains."""

import asyncio
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from octavo.child_process import ChildCommand
from octavo.restart_policy import RestartPolicy
from octavo.startup import StartupError
from octavo.supervisor import Supervisor
from tests.octavo.fakes import RecordingConsole, fake_command, has_ended

_QUICK = RestartPolicy(first_delay_s=0.001, longest_delay_s=0.002, stopped_limit_s=0.01)
_FOREVER = 60.0


def supervise(
    *commands: ChildCommand, console: RecordingConsole, end_timeout_s: float = _FOREVER
) -> Supervisor:
    return Supervisor(commands, console, end_timeout_s=end_timeout_s, restarts=_QUICK)


def signal_us(number: int = signal.SIGTERM) -> None:
    os.kill(os.getpid(), number)


async def test_announces_once_everything_is_ready_and_shows_the_stages() -> None:
    console = RecordingConsole()
    supervisor = supervise(
        fake_command("first", "stage:one", "stage:two", "ready", "stay"),
        fake_command("second", "say:hello", "ready", "stay"),
        console=console,
        end_timeout_s=0.01,
    )
    announced: list[int] = []

    def announce() -> None:
        announced.append(len(console.stages))
        signal_us()

    assert not await supervisor.run(announce)
    assert announced == [2]
    assert console.stages == [("first", "one", 0.5), ("first", "two", 0.5)]
    assert ("second", "hello") in console.lines


async def test_drains_in_order_one_after_the_other(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    names = ["gateway", "router", "scheduler", "worker"]
    supervisor = supervise(
        *(fake_command(name, "ready", f"drain:{notes}:{name}") for name in names),
        console=RecordingConsole(),
    )
    assert await supervisor.run(signal_us)
    expected = [f"{name} {event}" for name in names for event in ("asked", "ended")]
    assert notes.read_text().splitlines() == expected


async def test_every_line_of_a_draining_process_is_shown(tmp_path: Path) -> None:
    console = RecordingConsole()
    supervisor = supervise(
        fake_command("talker", "ready", f"drain:{tmp_path / 'notes'}:talker"), console=console
    )
    assert await supervisor.run(signal_us)
    assert console.lines_of("talker") == ["x" * 1023] * 1024


async def test_a_process_that_ends_is_started_again(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    console = RecordingConsole()
    actions = (f"note:{notes}:started", f"crash-until:{notes}:3", "ready", f"drain:{notes}:it")
    assert await supervise(fake_command("flaky", *actions), console=console).run(signal_us)
    assert notes.read_text().splitlines() == ["started"] * 3 + ["it asked", "it ended"]
    assert console.lines_of("flaky")[:2] == [
        "ended with status 3; it is started again in 0.0 s",
        "ended with status 3; it is started again in 0.0 s",
    ]


async def test_a_crash_loop_is_given_up_and_the_others_drain(tmp_path: Path) -> None:
    notes, gate = tmp_path / "notes", tmp_path / "gate"
    os.mkfifo(gate)
    supervisor = supervise(
        fake_command("steady", "ready", f"note:{gate}:go", f"drain:{notes}:steady"),
        fake_command(
            "looping", f"note:{notes}:started", f"crash-until:{notes}:6", f"await:{gate}", "exit:4"
        ),
        console=RecordingConsole(),
    )
    with pytest.raises(StartupError, match="^looping ended with status 4, for the 6th time in 60"):
        await supervisor.run(lambda: pytest.fail("announced"))
    assert notes.read_text().splitlines() == ["started"] * 6 + ["steady asked", "steady ended"]


async def test_a_killed_process_says_so_and_is_ready_again() -> None:
    console = RecordingConsole()
    supervisor = supervise(fake_command("victim", "spawn", "ready", "stay"), console=console)

    def kill_the_group() -> None:
        # The process it spawned is in its group, so this finds both.
        os.killpg(os.getpgid(int(console.lines_of("victim")[0])), signal.SIGKILL)

    running = asyncio.create_task(supervisor.run(kill_the_group))
    await console.shows("victim", "ready again")
    assert console.lines_of("victim")[1].startswith("was killed by SIGKILL; it is started again")
    signal_us()
    await console.shows("victim", "asked to end")
    signal_us()
    assert not await running


async def test_a_process_that_a_signal_has_stopped_is_killed_and_started_again() -> None:
    console = RecordingConsole()
    supervisor = supervise(fake_command("stopped", "spawn", "ready", "stay"), console=console)

    def stop() -> None:
        # The leader of the group that it spawned another process in.
        os.kill(os.getpgid(int(console.lines_of("stopped")[0])), signal.SIGSTOP)

    running = asyncio.create_task(supervisor.run(stop))
    await console.shows("stopped", "ready again")
    said = console.lines_of("stopped")[1:3]
    assert said[0] == "was stopped by a signal, does not go on, and is killed"
    assert said[1].startswith("was killed by SIGKILL; it is started again")
    signal_us()
    await console.shows("stopped", "asked to end")
    signal_us()
    assert not await running


async def test_what_a_process_leaves_behind_ends_with_it() -> None:
    console = RecordingConsole()
    supervisor = supervise(fake_command("parent", "spawn", "exit:0"), console=console)
    with pytest.raises(StartupError, match="for the 6th time"):
        await supervisor.run(lambda: None)
    left_behind = [int(line) for line in console.lines_of("parent") if line.isdigit()]
    assert len(left_behind) == 6
    assert all(has_ended(pid) for pid in left_behind)


async def test_a_process_that_cannot_start_ends_everything_with_its_reason(
    tmp_path: Path,
) -> None:
    notes, gate = tmp_path / "notes", tmp_path / "gate"
    os.mkfifo(gate)
    supervisor = supervise(
        fake_command("router", "ready", f"note:{gate}:go", f"drain:{notes}:router"),
        fake_command("worker", "stage:one", f"await:{gate}", "fail:the file is cut", "exit:1"),
        console=RecordingConsole(),
    )
    with pytest.raises(StartupError, match="^worker cannot start: the file is cut$"):
        await supervisor.run(lambda: pytest.fail("announced"))
    assert notes.read_text().splitlines() == ["router asked", "router ended"]


async def test_a_process_that_does_not_drain_is_killed_and_the_others_still_drain(
    tmp_path: Path,
) -> None:
    notes = tmp_path / "notes"
    console = RecordingConsole()
    supervisor = supervise(
        fake_command("stubborn", "ready", "stay"),
        fake_command("polite", "ready", f"drain:{notes}:polite"),
        console=console,
        end_timeout_s=1.0,
    )
    assert not await supervisor.run(signal_us)
    assert "did not end within 1 s and is killed" in console.lines_of("stubborn")
    assert notes.read_text().splitlines() == ["polite asked", "polite ended"]


async def test_a_second_signal_kills_what_still_drains() -> None:
    console = RecordingConsole()
    supervisor = supervise(
        fake_command("first", "ready", "stay"),
        fake_command("second", "ready", "stay"),
        console=console,
    )
    running = asyncio.create_task(supervisor.run(signal_us))
    await console.shows("first", "asked to end")
    signal_us(signal.SIGINT)
    assert not await running
    (said,) = console.lines_of("")
    assert "a second signal cuts them" in said
    assert console.lines_of("second") == []


_SUPERVISE_TWO = """
import asyncio, sys
from octavo.console import TextConsole
from octavo.restart_policy import RestartPolicy
from octavo.supervisor import Supervisor
from tests.octavo.fakes import fake_command

commands = [fake_command(name, "spawn", "ready", "stay") for name in ("first", "second")]
console = TextConsole(sys.stdout, ("first", "second"))
supervisor = Supervisor(commands, console, end_timeout_s=60, restarts=RestartPolicy())
asyncio.run(supervisor.run(lambda: print("announced", flush=True)))
"""


def test_killing_the_supervisor_leaves_no_child() -> None:
    supervisor = subprocess.Popen(
        [sys.executable, "-c", _SUPERVISE_TWO], stdout=subprocess.PIPE, text=True
    )
    assert supervisor.stdout is not None
    spawned: list[int] = []
    for line in supervisor.stdout:
        if line == "announced\n":
            break
        if match := re.search(r"\| (\d+)$", line):
            spawned.append(int(match[1]))
    children = [os.getpgid(pid) for pid in spawned]
    assert len(set(children)) == 2
    supervisor.kill()
    supervisor.wait()
    supervisor.stdout.close()
    gone = [has_ended(pid) for pid in children]
    for pid in spawned:
        os.kill(pid, signal.SIGKILL)
    assert gone == [True, True]
