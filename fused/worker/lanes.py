"""Serving threads: each has a slot in the ledger for notes, and its request buffer there too."""

import threading

from fused.ledger import layout as at
from fused.ledger.layout import SLOTS
from fused.ledger.writer import Ledger, Unfinished
from fused.worker.connection import RESENT

MASK = RESENT - 1
OWN_SLOT = SLOTS - 1  # for requests that the conductor reads itself


class Lane:
    """One thread's slot and the bytes of the request it works on.

    `request[1]` is the request's `unique`; `half` is the request as 32-bit words."""

    __slots__ = ("half", "request", "slot")

    def __init__(self, slot: memoryview, buffer: memoryview) -> None:
        self.slot = slot
        self.request = buffer.cast("Q")
        self.half = buffer.cast("I")


class Lanes:
    """The lanes of this worker, and what dead ones noted in slots that must stay.

    `local.lane` is the calling thread's, once it has called `enter`.
    """

    def __init__(self, ledger: Ledger) -> None:
        self.local = threading.local()
        self.lost: dict[int, Unfinished] = {}  # requests of dead workers that come again
        self._ledger = ledger
        self._free = list(range(OWN_SLOT - 1, -1, -1))
        self._of_thread: dict[int, Lane] = {}

    def expect(self, lost: dict[int, Unfinished]) -> None:
        """These requests of dead workers will come again; until then their slots stay."""
        self.lost = lost
        taken = {request.slot for request in lost.values()}
        self._free = [slot for slot in self._free if slot not in taken]
        for slot in self._free:
            self._ledger.clear_slot(slot)

    def assign(self, buffers: dict[int, int]) -> None:
        """Give lanes to threads that wait in read(2): by native id, their buffers' addresses."""
        for thread, address in buffers.items():
            number = self._free.pop()
            buffer = self._ledger.requests.put_at(number, address)
            self._of_thread[thread] = Lane(self._ledger.slot(number), buffer)

    def enter(self) -> Lane:
        """The calling thread's lane; of one that llfuse did not start, the conductor's own."""
        lane = self._of_thread.get(threading.get_native_id())
        if lane is None:
            lane = Lane(self._ledger.slot(OWN_SLOT), self._ledger.requests[OWN_SLOT])
        self.local.lane = lane
        return lane

    def kills_privileges(self) -> bool:
        """Whether the calling thread's request has to clear suid and sgid bits."""
        words = self.local.lane.half
        place = _KILL.get(words[1])
        return place is not None and bool(words[place[0]] & place[1])

    def resume(self, lane: Lane, unique: int) -> None:
        """The request was read by a dead worker: carry its notes over to this thread's slot."""
        lost = self.lost.pop(unique, None)
        if lost is None:
            return
        slot = lane.slot
        slot[at.OPERATION] |= (lost.attempts + lost.running) << 8
        if lost.before is not None:
            slot[at.BEFORE], slot[at.BEFORE_TARGET] = lost.before
            slot[at.INTENT] = unique
        self._ledger.clear_slot(lost.slot)


# Where requests say that suid and sgid bits have to go (include/uapi/linux/fuse.h), by opcode:
# index of a 32-bit word of the request, and the bit.
_OPEN, _WRITE, _CREATE = 14, 16, 35
_KILL = {_OPEN: (11, 1), _WRITE: (15, 1 << 2), _CREATE: (13, 1)}
