"""Workers as child processes of the manager, for machines without systemd.

They get what systemd gives: a notify socket, an fd store, a watchdog, restart with growing delay.
"""

import asyncio
import os
import sys
from collections.abc import Callable, Iterable
from typing import Self

from fused.launcher import Changed, WorkerState
from fused.launcher.supervisor import Supervisor

Command = Callable[[str], list[str]]


def worker_command(config: str, runtime_dir: str) -> Command:
    """What to run for a mount's name; the paths must be absolute."""
    options = ["--config", config, "--runtime-dir", runtime_dir]
    return lambda name: [sys.executable, "-m", "fused", "worker", name, *options]


class LocalLauncher:
    """A Launcher, and an async context manager: leaving it stops all workers, all at once."""

    kind = "local"

    def __init__(
        self, runtime_dir: str, command: Command, changed: Changed = lambda _: None
    ) -> None:
        self._runtime_dir = runtime_dir
        self._command = command
        self._changed = changed
        self._supervisors: dict[str, Supervisor] = {}
        self._tasks = asyncio.TaskGroup()

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        try:
            await asyncio.gather(*(one.stop(None) for one in self._supervisors.values()))
        finally:
            await self._tasks.__aexit__(None, None, None)
            for supervisor in self._supervisors.values():
                supervisor.close()

    async def start(self, name: str) -> None:
        """See Launcher."""
        await self._supervisor(name).start(self._tasks)

    async def stop(self, name: str, within: float | None = None) -> None:
        """See Launcher."""
        if name in self._supervisors:
            await self._supervisors[name].stop(within)

    async def restart(self, name: str) -> None:
        """See Launcher."""
        await self._supervisor(name).restart(self._tasks)

    async def states(self, names: Iterable[str]) -> dict[str, WorkerState]:
        """See Launcher."""
        known = self._supervisors
        return {name: known[name].state if name in known else WorkerState() for name in names}

    def unit(self, name: str) -> str | None:
        """None: there are no units."""
        return None

    def log(self, name: str) -> str | None:
        """See Launcher."""
        return os.path.join(self._runtime_dir, name, "log")

    def _supervisor(self, name: str) -> Supervisor:
        if name not in self._supervisors:
            directory = os.path.join(self._runtime_dir, name)
            self._supervisors[name] = Supervisor(
                name, directory, self._command(name), lambda: self._changed(name)
            )
        return self._supervisors[name]
