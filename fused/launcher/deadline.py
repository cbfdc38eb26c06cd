"""How long a worker may take, and what happens to one that takes longer."""

import asyncio
import signal
from collections.abc import Callable

from fused.launcher.child import Child

GRACE_SECONDS = 5.0  # from SIGABRT to SIGKILL


class Deadline:
    """The time by which a worker must be ready, feed its watchdog, or be gone.

    There is one at a time.  A worker that misses it gets SIGABRT, which makes it write its stacks
    to the log, and GRACE_SECONDS later SIGKILL.  `missed` says what it was late with.
    """

    def __init__(self, child: Child, report: Callable[[str], None]) -> None:
        self.missed = ""
        self._child = child
        self._report = report
        self._what = ""
        self._timer: asyncio.TimerHandle | None = None

    def set(self, seconds: float, what: str) -> None:
        """The worker has `seconds` from now, or `what` describes its failure: "did not …".
        Nothing changes for one that is late already."""
        if not self.missed:
            self._what = what
            self._call_in(seconds)

    def extend(self, seconds: float) -> None:
        """The worker has at least `seconds` from now, if it has a deadline."""
        now = asyncio.get_running_loop().time()
        if self._timer is not None and not self.missed and self._timer.when() - now < seconds:
            self._call_in(seconds)

    def clear(self) -> None:
        """The worker has all the time in the world."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def miss(self, what: str) -> None:
        """The worker is late with `what` now."""
        self.set(0, what)

    def _call_in(self, seconds: float) -> None:
        self.clear()
        self._timer = asyncio.get_running_loop().call_later(seconds, self._overdue)

    def _overdue(self) -> None:
        if self.missed:
            self._child.signal(signal.SIGKILL)
            return
        self.missed = self._what
        self._report(f"worker {self._child.pid} {self.missed}")
        self._child.signal(signal.SIGABRT)
        self._call_in(GRACE_SECONDS)
