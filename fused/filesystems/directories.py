"""Reading directories of a source: the part of passthrough that streams.

Offsets are the source's own, so that they mean the same to a successor.
"""

import os
from collections.abc import Iterator
from itertools import chain
from typing import Any

import llfuse
from llfuse import EntryAttributes

from fused.filesystems import syscalls
from fused.filesystems.source import Source
from fused.filesystems.survival import Record

GONE = -1  # in place of a descriptor: system calls answer EBADF


class Directory:
    """An open directory, and the entries that were read from it last.

    `names`, `inodes`, `kinds` and `offsets` (of what follows) have an item for each entry; before
    the first one the offset was `before`."""

    __slots__ = ("before", "fd", "inodes", "kinds", "names", "offsets")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.before = 0
        self._clear()

    def _clear(self) -> None:
        self.names: tuple[bytes, ...] = ()
        self.inodes: tuple[int, ...] = ()
        self.kinds: tuple[int, ...] = ()
        self.offsets: tuple[int, ...] = ()

    def find(self, offset: int) -> int:
        """The index of the entry at an offset: that of the last one + 1 when it is to be read.

        From the beginning, everything is read again.  OSError."""
        if offset and offset == self.before:
            return 0
        if offset in self.offsets:
            return self.offsets.index(offset) + 1
        if offset and not self.before and not self.names:
            # ext4 finds nothing at 0 after a first read at the end: let the first be at 0.
            syscalls.getdents(self.fd)
        os.lseek(self.fd, offset, os.SEEK_SET)
        self._clear()
        self.before = offset
        return 0

    def read(self) -> bool:
        """Go on to further entries; false when there are none.  OSError."""
        entries = syscalls.getdents(self.fd)
        self.before = self.offsets[-1] if self.offsets else self.before
        self._clear()
        if entries:
            self.names, self.inodes, self.kinds, self.offsets = zip(*entries, strict=True)
        return bool(entries)


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
        """No line of Python runs for an entry but `filled`: directories may be large."""
        return chain.from_iterable(self._parts(self._directories[fh], offset))

    def _parts(self, directory: Directory, offset: int) -> Iterator[Iterator[Any]]:
        index = directory.find(offset)
        device, number = os.fstat(directory.fd).st_dev, self._source.on_device
        own = device == self._source.device
        entry = EntryAttributes()

        def filled(inode: int, kind: int) -> EntryAttributes:
            entry.st_ino = inode if own else number(device, inode)
            entry.st_mode = kind << 12
            return entry

        while True:
            names, offsets = directory.names[index:], directory.offsets[index:]
            attributes = map(filled, directory.inodes[index:], directory.kinds[index:])
            yield zip(names, attributes, offsets, strict=True)
            if not directory.read():
                return
            index = 0

    def fsyncdir(self, fh: int, datasync: bool) -> None:
        fd = self._directories[fh].fd
        with self._record.waiting:
            (os.fdatasync if datasync else os.fsync)(fd)

    def releasedir(self, fh: int) -> None:
        if (fd := self._directories.pop(fh).fd) != GONE:
            os.close(fd)
