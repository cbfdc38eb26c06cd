"""What fused keeps for a file system that survives its worker (filesystems.survival.Record)."""

import contextlib
import fcntl
import os
import struct
from contextlib import AbstractContextManager

import llfuse

from fused import notify
from fused.ledger.inodes import InodeTable
from fused.ledger.writer import Ledger
from fused.worker import connection as wire
from fused.worker.backing import Backings
from fused.worker.crew import Crew
from fused.worker.lanes import Lanes

_INVALIDATE = struct.Struct("<IiQQqq")


class WorkerRecord:
    """The Record of a worker: its ledger, its connection, its supervisor's fd store."""

    def __init__(
        self, ledger: Ledger, lanes: Lanes, fd: int, crew: Crew | None, backings: Backings
    ) -> None:
        self._ledger, self._fd = ledger, fd
        self.waiting: AbstractContextManager[None] = crew or llfuse.lock_released
        self.inodes: InodeTable = ledger.inodes
        self.kills_privileges = lanes.kills_privileges
        self.next_handle = ledger.next_handle
        self.open_handle, self.close_handle = backings.open_handle, backings.close_handle
        self.written = backings.written
        self.open_handles = ledger.handles.open_on

    def invalidate(self, node: int) -> None:
        message = _INVALIDATE.pack(40, wire.NOTIFY_INVAL_INODE, 0, node, -1, 0)
        with contextlib.suppress(OSError):  # not known (any more): nothing to invalidate
            os.write(self._fd, message)

    def keep(self, name: str, fd: int) -> None:
        # systemd polls what it stores, which O_PATH descriptors (of fsmount(2), too) do not allow.
        if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_PATH:
            flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
            pollable = os.open(f"/proc/self/fd/{fd}", flags)
            try:
                notify.store(name, pollable)
            finally:
                os.close(pollable)
        else:
            notify.store(name, fd)

    def drop(self, name: str) -> None:
        notify.unstore(name)
