"""A file system that is slow when it is told to: a disk that takes its time."""

import os
import stat
import time
from typing import Any

import llfuse
from llfuse import EntryAttributes, FUSEError

ROOT, SIZE = 1, 4096


class Slow(llfuse.Operations):
    """The root holds the files 2 to 9, of SIZE bytes.  While `gate` exists nobody can read one."""

    def __init__(self, gate: str) -> None:
        super().__init__()
        self._gate = gate

    def getattr(self, inode: int, ctx: Any) -> EntryAttributes:
        entry = EntryAttributes()
        entry.st_ino = inode
        entry.st_mode = stat.S_IFDIR | 0o755 if inode == ROOT else stat.S_IFREG | 0o644
        entry.st_nlink, entry.st_size = 1, 0 if inode == ROOT else SIZE
        return entry

    def lookup(self, parent: int, name: bytes, ctx: Any) -> EntryAttributes:
        if name not in (b"2", b"3", b"4", b"5", b"6", b"7", b"8", b"9"):
            raise FUSEError(2)
        return self.getattr(int(name), ctx)

    def open(self, inode: int, flags: int, ctx: Any) -> int:
        return inode

    def opendir(self, inode: int, ctx: Any) -> int:
        return inode

    def access(self, inode: int, mode: int, ctx: Any) -> bool:
        return True

    def read(self, fh: int, offset: int, size: int) -> bytes:
        with llfuse.lock_released:
            while os.path.exists(self._gate):
                time.sleep(0.01)
        return (b"%d" % fh * SIZE)[offset : offset + size]

    def release(self, fh: int) -> None:
        pass

    def releasedir(self, fh: int) -> None:
        pass
