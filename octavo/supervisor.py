"""Starts the processes of the cluster, restarts one that ends, and drains them all in order."""

import asyncio
import signal
from collections.abc import Callable, Sequence

from .child_process import ChildCommand
from .cluster_member import ClusterMember
from .console import Console
from .restart_policy import RestartPolicy


class Supervisor:
    """The cluster on this machine: one process for each command."""

    def __init__(
        self,
        commands: Sequence[ChildCommand],
        console: Console,
        *,
        end_timeout_s: float,
        restarts: RestartPolicy,
    ) -> None:
        """Take what to run.

        Args:
            commands: in the order in which they drain: the side of the clients first.
            console: shows their lines and what happens to them.
            end_timeout_s: seconds that each has to end when asked to; then it is killed.
            restarts: when one that ended is started again.
        """
        self._end_timeout_s = end_timeout_s
        self._console = console
        self._members = [ClusterMember(command, console, restarts) for command in commands]
        self._stopping = asyncio.Event()
        self._is_killed = False

    async def run(self, announce: Callable[[], None]) -> bool:
        """Run the cluster until SIGTERM or SIGINT; return whether all drained in their time.

        A second signal kills what still drains.

        Args:
            announce: called once, when every process can serve.
        Raises:
            StartupError: a process cannot start, or ends again and again. None is left running.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        keepers = [asyncio.create_task(member.keep_running()) for member in self._members]
        others = [
            asyncio.create_task(self._stopping.wait()),
            asyncio.create_task(self._announce(announce)),
        ]
        await asyncio.wait([others[0], *keepers], return_when=asyncio.FIRST_COMPLETED)
        failed = [keeper for keeper in keepers if keeper.done()]
        for task in (*keepers, *others):
            task.cancel()
        has_drained = await self._drain()
        for keeper in failed:
            keeper.result()
        return has_drained

    async def _announce(self, announce: Callable[[], None]) -> None:
        for member in self._members:
            await member.ready.wait()
        announce()

    async def _drain(self) -> bool:
        in_time = [await member.drain(self._end_timeout_s) for member in self._members]
        return all(in_time) and not self._is_killed

    def _stop(self) -> None:
        if self._stopping.is_set():
            self._is_killed = True
            for member in self._members:
                member.kill()
        else:
            self._console.say("Stopping: running requests finish first; a second signal cuts them.")
        self._stopping.set()
