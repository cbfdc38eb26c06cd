"""counterfs: a directory of counters, as an example of a type that survives its worker.

`echo 5 > NAME` makes or sets a counter, `cat NAME` shows it, `rm NAME` removes it.  All is in a
memfd that fused keeps, and is replaced by one pwrite(2) of less than a page: no kill tears that.
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
        self.counters = pickle.loads(saved) if saved else {}  # inode: (name, b"" is none; value)

    def restore(self, inodes: Any, handles: Any) -> None:
        self.counters = {i: held for i, held in self.counters.items() if held[0] or i in inodes}

    def key(self, inode: int) -> bytes:
        return b""  # its number is enough to find it

    def peek(self, parent: int, name: bytes) -> int:
        return next((inode for inode, held in self.counters.items() if held[0] == name), 0)

    def change(self, inode: int, name: bytes, value: int) -> None:
        counters = {**self.counters, inode: (name, value)}
        if len(data := pickle.dumps(counters)) > 4096:
            raise FUSEError(errno.ENOSPC)
        os.pwrite(self.fd, data, 0)
        self.counters = counters

    def getattr(self, inode: int, ctx: Any) -> EntryAttributes:
        entry = EntryAttributes()
        entry.st_ino, entry.entry_timeout, entry.attr_timeout = inode, 0, 0
        entry.st_mode = stat.S_IFDIR | 0o777 if inode == ROOT_INODE else stat.S_IFREG | 0o666
        entry.st_size = len(self.read(inode, 0, 0)) if inode in self.counters else 0
        return entry

    def lookup(self, parent: int, name: bytes, ctx: Any) -> EntryAttributes:
        return self.getattr(self.peek(parent, name), ctx)  # inode 0: no such name

    def create(self, parent: int, name: bytes, mode: int, flags: int, ctx: Any) -> Any:
        inode = self.peek(parent, name) or max({ROOT_INODE, *self.counters}) + 1
        self.change(inode, *self.counters.get(inode, (name, 0)))
        return inode, self.getattr(inode, ctx)

    def unlink(self, parent: int, name: bytes, ctx: Any) -> None:
        self.change(inode := self.peek(parent, name), b"", self.counters[inode][1])

    def open(self, inode: int, *flags_and_ctx: Any) -> int:
        return inode

    opendir = open

    def read(self, fh: int, offset: int, size: int) -> bytes:
        return b"%d\n" % self.counters[fh][1]

    def write(self, fh: int, offset: int, data: bytes) -> int:
        self.change(fh, self.counters[fh][0], int(data))
        return len(data)

    def readdir(self, fh: int, offset: int) -> Any:
        for inode, (name, _) in self.counters.items():
            if name and inode > offset:
                yield name, self.getattr(inode, None), inode
