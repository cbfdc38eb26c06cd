"""The ledger from the side of the worker, its only writer."""

import mmap
import os
import time
from collections.abc import Sequence
from typing import NamedTuple

from fused.errors import LedgerDamaged
from fused.ledger import layout as at
from fused.ledger.handles import HandleTable
from fused.ledger.inodes import InodeTable
from fused.ledger.layout import FORMAT, SLOT_WORDS, SLOTS, SLOTS_AT, State, constants_crc
from fused.ledger.requests import RequestBuffers


class Unfinished(NamedTuple):
    """What a dead worker noted of a request that it took and may not have answered.

    `unique` is the request's number without the resend bit.  `counted` and `opened` tell what the
    lost reply would have given to the kernel; `before` what the names held, None without intent.
    """

    unique: int
    slot: int
    operation: int
    subject: int
    attempts: int
    running: bool
    counted: int | None  # node id
    opened: tuple[int, bool] | None  # fh, whether of a directory
    before: tuple[int, int] | None  # node ids that name and target name held; 0 is none


class Ledger:
    """The mapped file.  One process at a time may have it open for writing.

    `words` is the whole file as 64-bit words, `inodes` and `handles` its tables; `requests` are
    the buffers that the slots' threads read requests into.
    """

    def __init__(self, fd: int, requests: int | None) -> None:
        self._map = mmap.mmap(fd, at.TOTAL_WORDS * 8)
        self.words = memoryview(self._map).cast("Q")
        self.inodes = InodeTable(fd, self._map, self.words)
        self.handles = HandleTable(fd, self._map, self.words)
        self.requests = RequestBuffers(requests)
        self.predecessor = 0  # the pid of the worker before

    @classmethod
    def create(cls, path: str, minor: int, features: int) -> "Ledger":
        """A fresh ledger in place of whatever is at `path`, for the connection 0:`minor`."""
        temporary = f"{path}.{os.getpid()}"
        fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        os.posix_fallocate(fd, 0, at.HANDLES_AT * 8)
        os.ftruncate(fd, at.TOTAL_WORDS * 8)
        ledger = cls(fd, None)
        words = ledger.words
        constants = [at.TOTAL_WORDS * 8, time.monotonic_ns(), minor, features]
        words[at.SIZE], words[at.STARTED_NS], words[at.MINOR], words[at.FEATURES] = constants
        words[at.CONSTANTS_CRC] = constants_crc(constants)
        words[at.PID] = os.getpid()
        words[at.NEXT_HANDLE] = 1
        words[at.STATE] = State.STARTING
        words[at.FORMAT_WORD] = FORMAT
        os.rename(temporary, path)
        return ledger

    @classmethod
    def adopt(cls, path: str, requests: int | None = None) -> "Ledger":
        """The ledger of a dead worker, its tables read and mended.  The caller becomes its writer.
        `requests` is the descriptor of its request buffers, if it is at hand.

        LedgerDamaged when it cannot be trusted, FileNotFoundError when there is none.
        """
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        if os.fstat(fd).st_size != at.TOTAL_WORDS * 8:
            os.close(fd)
            raise LedgerDamaged("the ledger's size is not that of this format")
        ledger = cls(fd, requests)
        words = ledger.words
        if words[at.FORMAT_WORD] != FORMAT:
            raise LedgerDamaged("the ledger's format is of another version of fused")
        constants = [words[i] for i in (at.SIZE, at.STARTED_NS, at.MINOR, at.FEATURES)]
        if words[at.CONSTANTS_CRC] != constants_crc(constants):
            raise LedgerDamaged("the ledger's header is damaged")
        ledger.predecessor = words[at.PID]
        words[at.PID] = os.getpid()
        words[at.STATE] = State.RECOVERING
        words[at.RESTARTS] += 1
        ledger.inodes.adopt()
        ledger.handles.adopt()
        return ledger

    def set_state(self, state: int) -> None:
        """Tell readers what the worker does (a number of State)."""
        if state == State.SERVING:
            self.words[at.SERVING_NS] = time.monotonic_ns()
        self.words[at.STATE] = state

    def set_error(self, text: str) -> None:
        """Note the sentence that `status` shows as the last error."""
        raw = text.encode("utf-8", "replace")[: at.ERROR_BYTES]
        start = at.ERROR_TEXT * 8
        self.words[at.ERROR_LENGTH] = 0
        memoryview(self._map)[start : start + len(raw)] = raw
        self.words[at.ERROR_LENGTH] = len(raw)

    @property
    def minor(self) -> int:
        """The connection's device is 0:minor."""
        return self.words[at.MINOR]

    @property
    def features(self) -> int:
        """The FUSE_INIT flags that were negotiated."""
        return self.words[at.FEATURES]

    def next_handle(self) -> int:
        """A file handle number that no open of this mount had before."""
        number = self.words[at.NEXT_HANDLE]
        self.words[at.NEXT_HANDLE] = number + 1
        return number

    def latest(self) -> int:
        """The highest number of a request of the kernel's so far."""
        uniques = self.words[SLOTS_AT : SLOTS_AT + SLOTS * SLOT_WORDS : SLOT_WORDS].tolist()
        return max(unique for unique in uniques if unique < at.OWN_UNIQUE)

    def slot(self, number: int) -> memoryview:
        """The words of one request slot."""
        start = SLOTS_AT + number * SLOT_WORDS
        return self.words[start : start + SLOT_WORDS]

    def clear_slot(self, number: int) -> None:
        """Nothing is known of the slot's last request any more."""
        self.requests[number][:8] = bytes(8)
        self.slot(number)[at.UNIQUE] = 0
        self.slot(number)[at.SINCE_NS] = 0

    def forget(self, slot: memoryview, items: Sequence[tuple[int, int]], start: int = 0) -> None:
        """Take lookups back: (node id, how many) in each item from `start` on.

        The slot notes how far it got before each step."""
        for place in range(start, len(items)):
            node, count = items[place]
            if count and node != 1:
                left = max(0, self.inodes.count(node) - count)
                slot[at.BEFORE] = place << at.FORGOTTEN_SHIFT | left
                slot[at.INTENT] = slot[at.UNIQUE]
                self.inodes.decrement(node, count)

    def finish_forget(self, number: int, unique: int, items: Sequence[tuple[int, int]]) -> None:
        """Do what is not done yet of a FORGET that was read into the slot's buffer."""
        slot, start = self.slot(number), 0
        if slot[at.UNIQUE] != unique:
            slot[at.SINCE_NS] = 1
            slot[at.UNIQUE] = unique
        elif slot[at.SINCE_NS] == 0:
            return
        elif slot[at.INTENT] == unique:
            place, left = divmod(slot[at.BEFORE], 1 << at.FORGOTTEN_SHIFT)
            if place < len(items):
                self.inodes.decrement(items[place][0], self.inodes.count(items[place][0]) - left)
            start = place + 1
        self.forget(slot, items, start)
        slot[at.SINCE_NS] = 0

    def counters(self, operation: int) -> memoryview:
        """The words of one operation's counters."""
        start = at.COUNTERS_AT + operation * at.COUNTER_WORDS
        return self.words[start : start + at.COUNTER_WORDS]

    def unfinished(self) -> dict[int, Unfinished]:
        """What the slots say, by `unique`; of two slots with one request the later attempt."""
        found: dict[int, Unfinished] = {}
        for number in range(SLOTS):
            slot = self.slot(number).tolist()
            unique, attempts = slot[at.UNIQUE], slot[at.OPERATION] >> 8
            if not unique or (unique in found and found[unique].attempts > attempts):
                continue
            opened = (slot[at.OPENED_HANDLE] >> 1, bool(slot[at.OPENED_HANDLE] & 1))
            before = (slot[at.BEFORE], slot[at.BEFORE_TARGET])
            found[unique] = Unfinished(
                unique,
                number,
                slot[at.OPERATION] & 0xFF,
                slot[at.SUBJECT],
                attempts,
                slot[at.SINCE_NS] != 0,
                slot[at.COUNTED_NODE] if slot[at.COUNTED] == unique else None,
                opened if slot[at.OPENED] == unique else None,
                before if slot[at.INTENT] == unique else None,
            )
        return found

    def settle(self) -> None:
        """Find out whether a count was made that the dead worker was about to make, and which
        inodes it may have taken names from.

        It held the lock, so nothing has been counted since; this must be asked first."""
        for number in range(SLOTS):
            slot = self.slot(number)
            unique = slot[at.UNIQUE]
            if unique and slot[at.INTENT] == unique:
                self.inodes.doubtful |= {slot[at.BEFORE], slot[at.BEFORE_TARGET]}
            if unique and slot[at.COUNTING] == unique != slot[at.COUNTED]:
                made = self.inodes.count(slot[at.COUNTED_NODE]) == slot[at.COUNTED_AFTER]
                slot[at.COUNTED if made else at.COUNTING] = unique if made else 0

    def take_back(self, lost: Unfinished) -> None:
        """Undo what a reply that never reached the kernel had counted."""
        slot = self.slot(lost.slot)
        if lost.counted is not None:
            slot[at.COUNTED_AFTER] = self.inodes.count(lost.counted)  # as if it were to be made:
            slot[at.COUNTED] = 0  # a kill from here on is for `settle`
            self.inodes.decrement(lost.counted, 1)
            slot[at.COUNTING] = 0
        if lost.opened is not None:
            self.handles.remove(*lost.opened)
        slot[at.OPENED] = 0

    def check(self) -> None:
        """Run the invariants of the tables; AssertionError when one does not hold."""
        self.inodes.check()
        self.handles.check()
