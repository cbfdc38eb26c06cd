"""Workers as units fused@NAME.service of the system's systemd.

PID 1 is asked through systemctl(1): a handful of requests a minute do not pay for a D-Bus library,
and what the manager does is what an administrator could type.
"""

import asyncio
import os
import time
from collections.abc import Iterable

from fused.errors import WorkerFailed
from fused.launcher import Phase, WorkerState

PROPERTIES = (
    "Id,LoadState,ActiveState,SubState,MainPID,NRestarts,StatusText,Result,"
    "ExecMainCode,ExecMainStatus,StateChangeTimestampMonotonic"
)
PHASES = {
    "active": Phase.SERVING,
    "reloading": Phase.SERVING,
    "activating": Phase.STARTING,
    "deactivating": Phase.STOPPING,
    "failed": Phase.FAILED,
    "inactive": Phase.INACTIVE,
}
RESULTS = {
    "exit-code": "the worker exited with status {status}",
    "signal": "the worker was killed by signal {status}",
    "core-dump": "the worker was killed by signal {status}",
    "watchdog": "the worker did not feed its watchdog",
    "timeout": "the worker was not ready, or did not stop, in time",
    "oom-kill": "the worker was killed because memory ran out",
    "start-limit-hit": "the worker failed too often",
    "resources": "systemd could not start the worker",
}


FRESH_SECONDS = 0.2


class SystemdLauncher:
    """A Launcher.  Unit files say how long things may take, and PID 1 enforces it."""

    kind = "systemd"

    def __init__(self) -> None:
        self._seen: dict[str, tuple[float, WorkerState]] = {}
        self._asking = asyncio.Lock()

    async def start(self, name: str) -> None:
        """See Launcher."""
        await _systemctl("reset-failed", self.unit(name))
        await self._job("start", name)

    async def stop(self, name: str, within: float | None = None) -> None:
        """See Launcher."""
        stopping = asyncio.create_task(self._job("stop", name))
        try:
            if within is not None and not (await asyncio.wait([stopping], timeout=within))[0]:
                await _systemctl("kill", "--signal=KILL", self.unit(name))
            await stopping
        finally:
            stopping.cancel()
        await _systemctl("reset-failed", self.unit(name))

    async def restart(self, name: str) -> None:
        """See Launcher."""
        await _systemctl("reset-failed", self.unit(name))
        await self._job("restart", name)

    async def states(self, names: Iterable[str]) -> dict[str, WorkerState]:
        """See Launcher.  May be FRESH_SECONDS old: anybody may ask for the status, and PID 1 has
        other things to do."""
        wanted = list(names)
        async with self._asking:
            now = time.monotonic()
            due = [name for name in wanted if now - self._seen.get(name, (0,))[0] > FRESH_SECONDS]
            if due:
                states = await self._show(due)
                self._seen |= {name: (time.monotonic(), states[name]) for name in due}
        return {name: self._seen[name][1] for name in wanted}

    async def _show(self, names: list[str]) -> dict[str, WorkerState]:
        units = {self.unit(name): name for name in names}
        _, text, _ = await _systemctl("show", "--property", PROPERTIES, *units)
        states = dict.fromkeys(names, WorkerState())
        for block in text.split("\n\n"):
            properties = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
            if properties.get("Id") in units:
                states[units[properties["Id"]]] = worker_state(properties)
        return states

    def unit(self, name: str) -> str:
        """See Launcher."""
        return f"fused@{name}.service"

    def log(self, name: str) -> str | None:
        """None: the journal has it."""
        return None

    async def _job(self, verb: str, name: str) -> None:
        status, _, complaint = await _systemctl(verb, self.unit(name))
        self._seen.pop(name, None)
        if status != 0:
            state = (await self._show([name]))[name]
            raise WorkerFailed(state.error or complaint.strip() or f"systemctl {verb} failed")


def worker_state(properties: dict[str, str]) -> WorkerState:
    """The state that `systemctl show` describes."""
    restarts = int(properties.get("NRestarts", "0"))
    phase = PHASES.get(properties.get("ActiveState", ""), Phase.INACTIVE)
    if phase is Phase.STARTING and (restarts or properties.get("SubState") == "auto-restart"):
        phase = Phase.RESTARTING
    error = None
    if properties.get("LoadState") == "not-found":
        error = "the unit fused@.service is not installed"
    elif (result := properties.get("Result", "success")) != "success":
        text = RESULTS.get(result, f"the worker failed ({result})")
        status = properties.get("ExecMainStatus", "?")
        # A worker that ends with a sentence has made it its status text.
        told = properties.get("StatusText", "") if result == "exit-code" else ""
        error = told or text.format(status=status)
    return WorkerState(
        phase,
        int(properties.get("MainPID", "0")) or None,
        restarts,
        properties.get("StatusText", ""),
        int(properties.get("StateChangeTimestampMonotonic", "0")) / 1e6,
        error,
    )


async def _systemctl(*arguments: str) -> tuple[int, str, str]:
    """Run systemctl; its exit status, output and complaints."""
    # systemctl would tell our supervisor how it ended.
    environment = {key: value for key, value in os.environ.items() if key != "NOTIFY_SOCKET"}
    process = await asyncio.create_subprocess_exec(
        *("systemctl", "--no-pager", "--no-ask-password", *arguments),
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, complaint = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode(errors="replace"), complaint.decode(errors="replace")
