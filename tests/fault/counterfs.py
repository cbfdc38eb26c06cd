"""counterfs: a directory of counters, as an example of a type that survives its worker.

`echo 5 > NAME` makes or sets a counter, `cat NAME` shows it, `rm NAME` removes it.  All of it is
in a memfd that fused keeps, and changes by one pwrite(2) of less than a page: no kill tears that.
"""

import errno
import os
import pickle
import stat
from typing import Any

from llfuse import ROOT_INODE, EntryAttributes, FUSEError, Operations


class Counters(Operations):
    def attach(self, record: Any, descriptors: dict[str, int]) -> None:
        self.fd = descriptors.get("counters") or os.memfd_create("counters")
        record.keep("counters", self.fd)
        saved = os.pread(self.fd, 4096, 0)
        self.counters = pickle.loads(saved) if saved else {}  # inode: (name, value)

    def restore(self, inodes: Any, handles: Any) -> None:
        pass  # inodes are found by number, and a handle is the inode

    def key(self, inode: int) -> bytes:
        return b""

    def peek(self, parent: int, name: bytes) -> int:
        return next((inode for inode, held in self.counters.items() if held[0] == name), 0)

    def change(self, inode: int, name: bytes, value: int) -> None:
        self.counters[inode] = name, value
        if os.pwrite(self.fd, pickle.dumps(self.counters), 0) > 4096:
            raise FUSEError(errno.ENOSPC)

    def getattr(self, inode: int, ctx: Any) -> EntryAttributes:
        entry = EntryAttributes()
        entry.st_ino, entry.entry_timeout, entry.attr_timeout = inode, 0, 0
        entry.st_mode = stat.S_IFDIR | 0o777 if inode == ROOT_INODE else stat.S_IFREG | 0o666
        entry.st_size = len(self.read(inode, 0, 0)) if inode in self.counters else 0
        return entry

    def lookup(self, parent: int, name: bytes, ctx: Any) -> EntryAttributes:
        return self.getattr(self.peek(parent, name), ctx)  # inode 0: no such name
