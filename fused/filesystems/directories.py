"""Reading directories of a source: the part of passthrough that streams.

Offsets are the source's own, so that they mean the same to a successor.
"""

import os
from collections.abc import Iterator
from typing import Any

import llfuse
from llfuse import EntryAttributes

from fused.filesystems import syscalls
from fused.filesystems.source import Source
from fused.filesystems.survival import Record

GONE = -1  # in place of a descriptor: system calls answer EBADF


class Directory:
    """An open directory and the entries read from it but not passed on yet."""

    __slots__ = ("entries", "fd", "index", "offset")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.entries: list[tuple[bytes, int, int, int]] = []
        self.index = self.offset = 0


class DirectoryHandlers(llfuse.Operations):
    """Handlers of requests about open directories."""

    _record: Record
    _source: Source

    def __init__(self) -> None:
        super().__init__()
        self._directories: dict[int, Directory] = {}

    def opendir(self, inode: int, ctx: Any) -> int:
        fd = self._source.open(inode, os.O_RDONLY | os.O_DIRECTORY)
        fh = self._record.next_handle()
        self._directories[fh] = Directory(fd)
        return fh

    def readdir(self, fh: int, offset: int) -> Iterator[tuple[bytes, EntryAttributes, int]]:
        directory = self._directories[fh]
        if offset and not directory.entries and not directory.offset:
            # ext4 finds nothing at 0 after a first read at the end: let the first be at 0.
            syscalls.getdents(directory.fd)
        if offset != directory.offset or offset == 0:
            os.lseek(directory.fd, offset, os.SEEK_SET)
            directory.entries, directory.index, directory.offset = [], 0, offset
        device, number = os.fstat(directory.fd).st_dev, self._source.on_device
        own = device == self._source.device
        entry = EntryAttributes()
        while True:
            while directory.index < len(directory.entries):
                name, inode, kind, following = directory.entries[directory.index]
                entry.st_ino = inode if own else number(device, inode)
                entry.st_mode = kind << 12
                yield name, entry, following
                directory.index += 1
                directory.offset = following
            directory.entries, directory.index = syscalls.getdents(directory.fd), 0
            if not directory.entries:
                return

    def fsyncdir(self, fh: int, datasync: bool) -> None:
        fd = self._directories[fh].fd
        with self._record.waiting:
            (os.fdatasync if datasync else os.fsync)(fd)

    def releasedir(self, fh: int) -> None:
        if (fd := self._directories.pop(fh).fd) != GONE:
            os.close(fd)
