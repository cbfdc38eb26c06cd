"""Seeing that requests move.

The supervisor is fed while they do.  A handler that is stuck for longer than the mount's
`watchdog` is named in the log with all stacks, and the supervisor is asked to end this worker; the
request goes to the successor.
"""

import faulthandler
import logging
import time
from typing import TYPE_CHECKING

from fused import notify
from fused.ledger import layout as at
from fused.ledger.layout import OPERATIONS, SLOTS
from fused.worker import connection as wire

if TYPE_CHECKING:
    from fused.worker.service import Service

log = logging.getLogger("fused.worker")


class Watch:
    """Feeds the supervisor while requests move."""

    def __init__(self, service: "Service") -> None:
        self._service = service
        self._limit = service.mount.watchdog
        self._begun = time.monotonic_ns()
        self._uniques: list[int] = []
        self._moved = time.monotonic()

    def tick(self) -> None:
        """Look once; to be called several times within `watchdog`."""
        words = self._service.ledger.words
        start, end = at.SLOTS_AT, at.SLOTS_AT + SLOTS * at.SLOT_WORDS
        since = words[start + at.SINCE_NS : end : at.SLOT_WORDS].tolist()
        # What began earlier was begun by a dead worker, and waits for its turn.
        oldest = min((ns for ns in since if ns > self._begun), default=0)
        stuck = (time.monotonic_ns() - oldest) / 1e9 if oldest else 0.0
        if not self._limit:
            return
        if stuck > self._limit:
            slot = start + since.index(oldest) * at.SLOT_WORDS
            name = OPERATIONS[words[slot + at.OPERATION] & 0xFF]
            self._trigger(f"{name} is stuck for {stuck:.1f} s")
        elif self._unread_for() > self._limit:
            self._trigger(f"no request was read for {self._limit:.1f} s")
        else:
            notify.notify("WATCHDOG=1")

    def _unread_for(self) -> float:
        """Seconds that the kernel has had requests for us and no thread took one."""
        words, end = self._service.ledger.words, at.SLOTS_AT + SLOTS * at.SLOT_WORDS
        uniques = words[at.SLOTS_AT : end : at.SLOT_WORDS].tolist()
        if uniques != self._uniques or wire.idle(self._service.fd):
            self._uniques, self._moved = uniques, time.monotonic()
        return time.monotonic() - self._moved

    def _trigger(self, sentence: str) -> None:
        log.error("%s; the stacks follow, then a new worker takes over", sentence)
        self._service.ledger.set_error(sentence)
        faulthandler.dump_traceback()
        notify.notify(f"STATUS={sentence}", "WATCHDOG=trigger")

    def watch(self) -> None:
        """Look until the process ends."""
        while True:
            self.tick()
            time.sleep(min(1.0, self._limit / 4) if self._limit else 1.0)
