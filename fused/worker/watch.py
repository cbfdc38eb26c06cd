"""The conductor's second job: that requests move, and that lookup counts are exact.

The supervisor is fed while they move.  A handler that is stuck for longer than the mount's
`watchdog` is named in the log with all stacks, and the supervisor is asked to end this worker; the
request goes to the successor.
"""

import faulthandler
import logging
import time
from typing import TYPE_CHECKING

import llfuse

from fused import notify
from fused.ledger import layout as at
from fused.ledger.layout import OPERATIONS, SLOTS
from fused.worker import connection as wire

if TYPE_CHECKING:
    from fused.worker.service import Service

log = logging.getLogger("fused.worker")
BATCH = 500  # inodes that the audit asks about at once


class Watch:
    """Feeds the supervisor while requests move."""

    def __init__(self, service: "Service") -> None:
        self._service = service
        self._limit = service.mount.watchdog
        self._uniques: list[int] = []
        self._moved = time.monotonic()

    def tick(self) -> None:
        """Look once; to be called several times within `watchdog`."""
        words = self._service.ledger.words
        start, end = at.SLOTS_AT, at.SLOTS_AT + SLOTS * at.SLOT_WORDS
        since = words[start + at.SINCE_NS : end : at.SLOT_WORDS].tolist()
        oldest = min((ns for ns in since if ns), default=0)
        stuck = (time.monotonic_ns() - oldest) / 1e9 if oldest else 0.0
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


class Audit:
    """After a takeover: inodes whose FORGET died with the predecessor are dropped.

    The kernel is asked about every inode in the ledger.  One that it does not know, twice with a
    second and more between, unchanged meanwhile, and both times with nothing on its way, is not
    known; nothing else may be concluded, for a reply or a FORGET may be on its way.
    """

    def __init__(self, service: "Service") -> None:
        self._service = service
        self._inodes = service.ledger.inodes
        self._unasked = list(self._inodes) if service.heir else []
        self._suspects: dict[int, int] = {}  # node -> count
        self._asked = 0.0

    def tick(self) -> None:
        """Go on with the audit; short."""
        if self._unasked:
            batch, self._unasked = self._unasked[:BATCH], self._unasked[BATCH:]
            for node in batch:
                if not wire.known_to_kernel(self._service.fd, node):
                    self._suspects[node] = self._inodes.count(node)
            self._asked = time.monotonic()
        elif self._suspects and time.monotonic() > self._asked + 1:
            with llfuse.lock:
                self._drop()

    @property
    def busy(self) -> bool:
        return bool(self._unasked)

    def _drop(self) -> None:
        session, fd = self._service.session, self._service.fd
        if not session.quiescent():
            return
        gone = [
            (node, count)
            for node, count in self._suspects.items()
            if self._inodes.count(node) == count and not wire.known_to_kernel(fd, node)
        ]
        if session.quiescent():
            for node, count in gone:
                self._inodes.decrement(node, count)
            self._service.fs.forget(gone)
            self._suspects.clear()
            if gone:
                log.info("%d inodes were forgotten while no worker served", len(gone))


def watch(service: "Service") -> None:
    """Watch until the process ends."""
    watch_, audit = Watch(service), Audit(service)
    interval = min(1.0, service.mount.watchdog / 4)
    due = 0.0
    while True:
        if time.monotonic() >= due:
            watch_.tick()
            due = time.monotonic() + interval
        audit.tick()
        time.sleep(0.01 if audit.busy else min(interval, 0.25))
