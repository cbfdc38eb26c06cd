"""Launchers start, stop, restart and list workers.  Two kinds, one contract.

    systemd   `fused.launcher.systemd`: units fused@NAME.service
    local     `fused.launcher.local`: child processes of the manager, which get what systemd gives

A worker cannot tell which of the two launched it.
"""

import enum
import os
from collections.abc import Callable, Iterable
from typing import NamedTuple, Protocol


class Phase(enum.StrEnum):
    """What a launcher says of a worker; `restarting` lasts from a worker's end to the moment its
    successor serves."""

    INACTIVE = "inactive"
    STARTING = "starting"
    SERVING = "serving"
    RESTARTING = "restarting"
    STOPPING = "stopping"
    FAILED = "failed"


class WorkerState(NamedTuple):
    """A worker as its launcher sees it.  `since` is when the phase began (CLOCK_MONOTONIC, s),
    `restarts` counts successors, `error` says why the last worker ended badly."""

    phase: Phase = Phase.INACTIVE
    pid: int | None = None
    restarts: int = 0
    status_text: str = ""
    since: float = 0.0
    error: str | None = None


class Launcher(Protocol):
    """What both kinds promise.  All methods may be called at any time and concurrently."""

    kind: str  # "systemd" or "local"

    async def start(self, name: str) -> None:
        """Have a worker serve `name`; returns when it does.  WorkerFailed when it was given up.
        Nothing happens when one serves already."""

    async def stop(self, name: str, within: float | None = None) -> None:
        """Have no worker for `name`: it unmounts cleanly, and is killed when that takes longer
        than `within` seconds (None: as long as is usual, or as the worker asks for).  Returns when
        it is gone.  From the moment of the call on none is started again."""

    async def restart(self, name: str) -> None:
        """Have a new worker on the same connection; returns when it serves.  Like `start` when
        there was none."""

    async def states(self, names: Iterable[str]) -> dict[str, WorkerState]:
        """The state of each of `names`; a name never started is inactive."""

    def unit(self, name: str) -> str | None:
        """The systemd unit of `name`, or None."""

    def log(self, name: str) -> str | None:
        """The file that `name`'s worker logs to, or None when that is the journal."""


Changed = Callable[[str], None]
"""Told the name whenever a worker's state changed, if the launcher knows; it may be told late or
not at all, so its owner looks for itself from time to time."""


def suitable() -> str:
    """The kind for this process: systemd when it runs as a unit of the system's PID 1."""
    supervised = "INVOCATION_ID" in os.environ and os.getppid() == 1
    return "systemd" if supervised and os.path.isdir("/run/systemd/system") else "local"
