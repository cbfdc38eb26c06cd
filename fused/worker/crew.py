"""Serving threads that step in for each other.

One thread at a time takes requests: two would mostly hand locks to and fro, which takes longer
than a request.  Only while a handler waits (`Record.waiting`: for a disk, say) another thread
steps in.  A thread rests in the reply to a FORGET, for which nobody waits, when it is one too
many; the session lets all but one begin like that.
"""

import ctypes
import os

import llfuse

# Unlike os.eventfd_read it returns when a signal has come, which is how llfuse ends its threads.
_eventfd_read = ctypes.CDLL(None).eventfd_read


class Crew:
    """The threads of one session.  Everything is called with llfuse's lock.

    A context manager around what waits: it gives the lock up, and sees to it that somebody else
    serves meanwhile.

    Invariants (`check`): `_active` threads take or serve requests and do not wait; nobody rests
    while there is none of them.
    """

    def __init__(self, threads: int) -> None:
        self._active = threads
        self._resting: list[int] = []  # an eventfd for each, the last to go is called first
        self._free: list[int] = []  # eventfds of threads that do not rest

    def rest(self) -> None:
        """If another thread serves: wait until this one is wanted, or a signal comes."""
        if self._active <= 1:
            return
        call = self._free.pop() if self._free else os.eventfd(0, os.EFD_CLOEXEC)
        self._active -= 1
        self._resting.append(call)
        with llfuse.lock_released:
            _eventfd_read(call, ctypes.byref(ctypes.c_uint64()))
        if call in self._resting:  # it was a signal
            self._resting.remove(call)
            self._active += 1
        self._free.append(call)

    def __enter__(self) -> None:
        self._active -= 1
        if not self._active and self._resting:
            self._active += 1
            os.eventfd_write(self._resting.pop(), 1)
        llfuse.lock.release()

    def __exit__(self, *_: object) -> None:
        llfuse.lock.acquire()
        self._active += 1

    def check(self) -> None:
        """Run the invariants; AssertionError when one does not hold."""
        assert self._active >= 0
        assert self._active or not self._resting
