"""Serving threads that step in for each other.

One thread at a time takes requests: two would mostly hand locks to and fro, which takes longer
than a request.  Only while a handler waits (`Record.waiting`: for a disk, say) another thread
steps in.  Then there is one too many, which rests when it can do so without anybody waiting for
it: after a FORGET, which has no reply, or after a request that it has answered itself (llfuse's
own answer then finds no request any more, ENOENT, as for a client that was killed).
"""

import ctypes
import os
import struct
from collections.abc import Callable
from time import monotonic
from typing import Any

import llfuse

from fused.worker.connection import OUT_HEADER

CALM = 0.005  # seconds after which nobody is expected to wait again soon
_WRITTEN = struct.Struct("=II")  # fuse_write_out
# The requests that are answered here, and what of a handler's result follows the header.
BODIES: dict[str, Callable[[Any], Any]] = {
    "forget": lambda _: None,
    "release": lambda _: b"",
    "write": lambda size: _WRITTEN.pack(size, 0),
    "read": lambda data: data,
}

# Unlike os.eventfd_read it returns when a signal has come, which is how llfuse ends its threads.
_eventfd_read = ctypes.CDLL(None).eventfd_read


class Crew:
    """The threads of one session.  Everything is called with llfuse's lock.

    A context manager around what waits: it gives the lock up, and sees to it that somebody else
    serves meanwhile.

    Invariants (`check`): `_active` threads take or serve requests and do not wait; nobody rests
    while there is none of them.
    """

    def __init__(self, fd: int, threads: int) -> None:
        self._fd, self._active = fd, threads
        self._waited = 0.0  # when somebody waited last
        self._resting: list[int] = []  # an eventfd for each, the last to go is called first
        self._free: list[int] = []  # eventfds of threads that do not rest
        self._connected = False

    def connect(self) -> None:
        """From now on requests come from the connection, and threads may rest."""
        self._connected = True

    def answer(self, unique: int, body: Callable[[Any], Any], result: Any) -> None:
        """If the calling thread is one too many, answer its request (with `body(result)`, nothing
        for None) and let it rest until it is wanted, or a signal comes."""
        if self._active <= 1 or not self._connected or monotonic() - self._waited < CALM:
            return
        if (data := body(result)) is not None:
            try:
                os.writev(self._fd, (OUT_HEADER.pack(16 + len(data), 0, unique), data))
            except OSError:
                return
        self._rest()

    def _rest(self) -> None:
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
        self._waited = monotonic()

    def check(self) -> None:
        """Run the invariants; AssertionError when one does not hold."""
        assert self._active >= 0
        assert self._active or not self._resting
