"""The life of one worker under the local launcher.

Rules of this file
- MOVES is the law: a phase changes only in `_enter`, which asserts that the move is there.
- `_run` and `_serve` are the life in straight line: spawn, wait for the end, decide what follows.
  What happens meanwhile (notifications, missed deadlines, requests to stop or to hand over) only
  changes the fields that they decide by, and sends signals.
- Back-off counts failures in a row and resets only after health: HEALTHY_SECONDS of service.
"""

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from fused.errors import FusedError, WorkerFailed
from fused.launcher import Phase, WorkerState
from fused.launcher.child import Child, describe
from fused.launcher.deadline import GRACE_SECONDS, Deadline
from fused.launcher.fdstore import FdStore
from fused.launcher.notifysocket import Message, NotifySocket
from fused.launcher.workerlog import WorkerLog

logger = logging.getLogger(__name__)

MOVES: dict[Phase, frozenset[Phase]] = {
    Phase.INACTIVE: frozenset({Phase.STARTING}),
    Phase.STARTING: frozenset(
        {Phase.SERVING, Phase.RESTARTING, Phase.STOPPING, Phase.INACTIVE, Phase.FAILED}
    ),
    Phase.SERVING: frozenset({Phase.RESTARTING, Phase.STOPPING, Phase.INACTIVE, Phase.FAILED}),
    Phase.RESTARTING: frozenset(
        {Phase.RESTARTING, Phase.SERVING, Phase.STOPPING, Phase.INACTIVE, Phase.FAILED}
    ),
    Phase.STOPPING: frozenset({Phase.INACTIVE}),
    Phase.FAILED: frozenset({Phase.STARTING, Phase.INACTIVE}),
}

START_SECONDS = 60.0  # from spawn to READY=1, unless EXTEND_TIMEOUT_USEC asks for more
STOP_SECONDS = 30.0  # from SIGTERM to the end, likewise
HEALTHY_SECONDS = 10.0
FAILURES = 10  # this many in a row without health, and the worker is given up
REFUSED = 1  # exit status: the worker ended with a sentence that says why
NO_RETRY = 78  # exit status (EX_CONFIG): trying again cannot help


def delay(failures: int) -> float:
    """Seconds to wait before the next start, after that many failures in a row: 0, 0.1, 0.2, 0.4
    … 30.  The first is immediate because programs that use the mount are waiting."""
    return 0.0 if failures <= 1 else min(30.0, 0.1 * 2 ** (failures - 2))


class Supervisor:
    """Keeps one worker alive.

    Invariants: `_child` and `_deadline` are set exactly while a process exists; the fd store is
    empty in INACTIVE and FAILED.
    """

    def __init__(
        self, name: str, directory: str, command: list[str], changed: Callable[[], None]
    ) -> None:
        self.name = name
        self.log = WorkerLog(os.path.join(directory, "log"))
        self.state = WorkerState(since=time.monotonic())
        self._command = command
        self._directory = directory
        self._changed = changed
        self._moved = asyncio.Event()  # replaced at each move
        self._wake = asyncio.Event()  # ends a pause between two starts
        self._store = FdStore()
        self._child: Child | None = None
        self._deadline: Deadline | None = None
        self._watchdog = 0.0  # seconds, 0 for none
        self._has_served = False  # since `start`
        self._served_since: float | None = None
        self._ended_at = 0.0  # when the last worker stopped serving
        self._stop_asked = self._handover_asked = False

    # What the launcher asks for

    async def start(self, tasks: asyncio.TaskGroup) -> None:
        """Serve; WorkerFailed when the worker was given up or stopped before it served."""
        if self.state.phase is Phase.STOPPING:
            await self._until(Phase.INACTIVE)
        if self.state.phase in (Phase.INACTIVE, Phase.FAILED):
            self._has_served = False
            self._enter(Phase.STARTING, error=None, restarts=0, status_text="")
            tasks.create_task(self._run(), name=f"worker {self.name}")
        if await self._until(Phase.SERVING, Phase.INACTIVE, Phase.FAILED) is not Phase.SERVING:
            raise WorkerFailed(self.state.error or "the worker ended before it served")

    async def stop(self, within: float | None) -> None:
        """End the worker cleanly, `within` seconds or else by force, and forget a failure."""
        if self.state.phase is Phase.FAILED:
            self._enter(Phase.INACTIVE)
        if self.state.phase is Phase.INACTIVE:
            return
        if self.state.phase is not Phase.STOPPING:
            self._stop_asked = True
            self._wake.set()
            self._enter(Phase.STOPPING)
            if self._child is not None:
                self._child.signal(signal.SIGTERM)
                self._stop_within(STOP_SECONDS)
        if within is not None:
            self._stop_within(within)
        await self._until(Phase.INACTIVE)

    async def restart(self, tasks: asyncio.TaskGroup) -> None:
        """Hand over to a new worker, or start one."""
        if self.state.phase is Phase.SERVING and self._child and self._deadline:
            self._handover_asked = True
            self._ended_at = time.monotonic()
            self._enter(Phase.RESTARTING)
            self._child.signal(signal.SIGUSR2)
            self._deadline.set(GRACE_SECONDS, "did not hand over in time")
        self._wake.set()
        await self.start(tasks)

    def close(self) -> None:
        """Give back what the store's polling takes; the worker must be inactive."""
        self._store.close()

    # The life

    async def _run(self) -> None:
        final = Phase.FAILED
        try:
            os.makedirs(self._directory, mode=0o755, exist_ok=True)
            with contextlib.closing(NotifySocket(self._directory + "/notify")) as notify:
                final = await self._serve(notify)
        except (OSError, FusedError) as error:
            self._update(error=f"cannot start the worker: {error}")
        finally:
            self._store.clear()
            self._enter(Phase.INACTIVE if self._stop_asked else final)
            self._stop_asked = self._handover_asked = False

    async def _serve(self, notify: NotifySocket) -> Phase:
        """Workers, one after the other, until none is wanted or it is hopeless."""
        failures = 0
        while not self._stop_asked:
            status = await self._live(notify)
            if self._stop_asked or (status == 0 and not self._handover_asked):
                break
            if not self._handover_asked:
                failures = 1 if self._was_healthy() else failures + 1
                if self._is_hopeless(status, failures):
                    return Phase.FAILED
                self._enter(Phase.RESTARTING)
                await self._pause(delay(failures))
            self._handover_asked = False
            self._update(restarts=self.state.restarts + 1)
        return Phase.INACTIVE

    async def _live(self, notify: NotifySocket) -> int:
        """One process from spawn to end; its exit status."""
        self._served_since, self._watchdog = None, 0.0
        self.log.rotate()
        with self.log.open() as output:
            child = Child(self._command, notify.path, output.fileno(), list(self._store))
        self._child = child
        self._deadline = deadline = Deadline(child, lambda text: self._say(logging.ERROR, text))
        self._update(pid=child.pid)
        deadline.set(START_SECONDS, "was not ready in time")
        heard, expire = partial(self._heard, notify), self._store.expire
        with _reading(notify.fileno(), heard), _reading(self._store.fileno(), expire):
            status = await child.ended
        self._heard(notify)  # what it said last
        deadline.clear()
        self._child = self._deadline = None
        if not self._handover_asked:
            self._ended_at = time.monotonic()
        self._update(pid=None)
        if status != 0 and not self._stop_asked:
            self._ended_badly(child.pid, status, deadline.missed)
        return status

    def _ended_badly(self, pid: int, status: int, missed: str) -> None:
        end = f"{missed} and {describe(status)}" if missed else describe(status)
        told = self.state.status_text if status > 0 and not missed else ""
        self._update(error=told or f"the worker {end}")
        self._say(logging.WARNING, f"worker {pid} {end}" + (f": {told}" if told else ""))

    def _was_healthy(self) -> bool:
        since = self._served_since
        return since is not None and self._ended_at - since >= HEALTHY_SECONDS

    def _is_hopeless(self, status: int, failures: int) -> bool:
        """Whether another start would be in vain: the configuration is wrong; or the worker said
        why it cannot start, and nobody waits as none ever served; or it failed too often."""
        refused = status == REFUSED and not self._has_served
        if status == NO_RETRY or refused or failures >= FAILURES:
            self._say(logging.ERROR, f"given up (failures in a row: {failures})")
            return True
        return False

    async def _pause(self, seconds: float) -> None:
        self._wake.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), seconds)

    # What the worker says

    def _heard(self, notify: NotifySocket) -> None:
        for message in notify.receive():
            if self._child is None or message.pid != self._child.pid:
                message.close()
                continue
            said = message.assignments
            self._keep(message)
            if "STATUS" in said:
                self._update(status_text=said["STATUS"])
            if "WATCHDOG_USEC" in said:
                self._watchdog = _seconds(said["WATCHDOG_USEC"])
            if said.get("READY") == "1":
                self._ready()
            if self._deadline is not None:
                self._time(said, self._deadline)

    def _keep(self, message: Message) -> None:
        said = message.assignments
        if said.get("FDSTORE") == "1":
            self._store.add(said.get("FDNAME", "stored"), message.fds)
        else:
            message.close()
        if said.get("FDSTOREREMOVE") == "1":
            self._store.remove(said.get("FDNAME", ""))

    def _ready(self) -> None:
        if self.state.phase not in (Phase.STARTING, Phase.RESTARTING) or self._handover_asked:
            return
        self._served_since = time.monotonic()
        self._has_served = True
        if self.state.phase is Phase.RESTARTING:
            stall = self._served_since - self._ended_at
            self._say(logging.INFO, f"worker {self.state.pid} took over after {stall:.3f} s")
        self._enter(Phase.SERVING)

    def _time(self, said: dict[str, str], deadline: Deadline) -> None:
        """What a message means for the deadline, unless it is missed already."""
        if deadline.missed:
            return
        if said.get("WATCHDOG") == "trigger":
            deadline.miss("triggered its watchdog")
        elif self.state.phase is Phase.SERVING:
            if said.get("STOPPING") == "1":
                self._watchdog = 0.0
                self._stop_within(STOP_SECONDS)
            elif {"READY", "WATCHDOG", "WATCHDOG_USEC"} & said.keys():
                deadline.clear()
                if self._watchdog:
                    deadline.set(self._watchdog, "did not feed its watchdog")
        if "EXTEND_TIMEOUT_USEC" in said:
            deadline.extend(_seconds(said["EXTEND_TIMEOUT_USEC"]))

    # State

    def _enter(self, phase: Phase, **more: Any) -> None:
        assert phase in MOVES[self.state.phase], f"{self.name}: {self.state.phase} -> {phase}"
        self._update(phase=phase, since=time.monotonic(), **more)
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()

    def _update(self, **fields: Any) -> None:
        self.state = self.state._replace(**fields)
        self._changed()

    def _stop_within(self, seconds: float) -> None:
        if self._deadline is not None:
            self._deadline.set(seconds, "did not stop in time")

    async def _until(self, *phases: Phase) -> Phase:
        while self.state.phase not in phases:
            await self._moved.wait()
        return self.state.phase

    def _say(self, level: int, text: str) -> None:
        """For the manager's log and the mount's own."""
        logger.log(level, "%s: %s", self.name, text)
        self.log.write(text)


@contextlib.contextmanager
def _reading(fd: int, callback: Callable[[], None]) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    loop.add_reader(fd, callback)
    try:
        yield
    finally:
        loop.remove_reader(fd)


def _seconds(usec: str) -> float:
    return int(usec) / 1e6 if usec.isascii() and usec.isdigit() else 0.0
