"""What fused keeps for a file system that survives its worker (filesystems.survival.Record)."""

import os
import struct
from typing import TYPE_CHECKING

from fused import notify
from fused.ledger.inodes import InodeTable
from fused.ledger.writer import Ledger
from fused.worker import connection as wire

if TYPE_CHECKING:
    from fused.worker.interposer import Interposer

# Where requests say that suid and sgid bits have to go (include/uapi/linux/fuse.h), by opcode:
# index of a 32-bit word of the request, and the bit.
_SETATTR, _OPEN, _WRITE, _CREATE = 4, 14, 16, 35
_KILL = {_SETATTR: (10, 1 << 11), _OPEN: (11, 1), _WRITE: (15, 1 << 2), _CREATE: (13, 1)}
_INVALIDATE = struct.Struct("<IiQQqq")


class WorkerRecord:
    """The Record of a worker: its ledger, its connection, its supervisor's fd store."""

    def __init__(self, ledger: Ledger, fd: int) -> None:
        self._ledger, self._fd = ledger, fd
        self.inodes: InodeTable = ledger.inodes
        self.next_handle = ledger.next_handle
        self.open_handles = ledger.handles.open_on
        self.interposer: Interposer | None = None

    def kills_privileges(self) -> bool:
        assert self.interposer is not None
        words = self.interposer.request_words()
        place = _KILL.get(words[1])
        return place is not None and bool(words[place[0]] & place[1])

    def invalidate(self, node: int) -> None:
        message = _INVALIDATE.pack(40, wire.NOTIFY_INVAL_INODE, 0, node, -1, 0)
        try:
            os.write(self._fd, message)
        except OSError:
            pass  # the kernel does not know it (any more): nothing to invalidate

    def keep(self, name: str, fd: int) -> None:
        notify.store(name, fd)

    def drop(self, name: str) -> None:
        notify.unstore(name)
