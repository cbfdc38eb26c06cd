"""A file system that notes all that reaches it, in order: what a disk saw until it had no power.

It has one directory, with files, in memory.  `log` is the path of the journal, from which
`Disk` rebuilds the files as a cut leaves them.
"""

import errno
import os
import random
import stat
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import llfuse
from llfuse import ROOT_INODE, EntryAttributes, FUSEError

_HEAD = struct.Struct("=cIQI")  # what, inode, offset or number, length of what follows
CREATE, WRITE, TRUNCATE, RENAME, UNLINK, FLUSH = b"c", b"w", b"t", b"r", b"u", b"f"
BLOCK = 4096  # bytes that a disk writes in one


class Recording(llfuse.Operations):
    def __init__(self, log: str) -> None:
        super().__init__()
        self._log = os.open(log, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND)
        self._names: dict[bytes, int] = {}
        self._files: dict[int, bytearray] = {}

    def _note(self, what: bytes, inode: int, number: int = 0, data: bytes = b"") -> None:
        os.writev(self._log, [_HEAD.pack(what, inode, number, len(data)), data])

    def getattr(self, inode: int, ctx: Any) -> EntryAttributes:
        entry = EntryAttributes()
        entry.st_ino, entry.st_nlink = inode, 1
        entry.st_mode = stat.S_IFREG | 0o600 if inode in self._files else stat.S_IFDIR | 0o700
        entry.st_size = len(self._files.get(inode, b""))
        entry.st_blocks, entry.st_blksize = -(-entry.st_size // 512), BLOCK
        return entry

    def lookup(self, parent: int, name: bytes, ctx: Any) -> EntryAttributes:
        if name not in self._names:
            raise FUSEError(errno.ENOENT)
        return self.getattr(self._names[name], ctx)

    def create(self, parent: int, name: bytes, mode: int, flags: int, ctx: Any) -> Any:
        inode = ROOT_INODE + 1 + len(self._files)
        self._names[name], self._files[inode] = inode, bytearray()
        self._note(CREATE, inode, 0, name)
        return inode, self.getattr(inode, ctx)

    def rename(self, old: int, name: bytes, new: int, new_name: bytes, ctx: Any) -> None:
        self._names[new_name] = self._names.pop(name)
        self._note(RENAME, self._names[new_name], 0, name + b"/" + new_name)

    def unlink(self, parent: int, name: bytes, ctx: Any) -> None:
        self._note(UNLINK, self._names.pop(name), 0, name)

    def setattr(self, inode: int, attr: Any, fields: Any, fh: Any, ctx: Any) -> EntryAttributes:
        if fields.update_size:
            _resize(self._files[inode], attr.st_size)
            self._note(TRUNCATE, inode, attr.st_size)
        return self.getattr(inode, ctx)

    def open(self, inode: int, flags: int, ctx: Any) -> int:
        return inode

    def opendir(self, inode: int, ctx: Any) -> int:
        return inode

    def readdir(self, fh: int, offset: int) -> Iterator[tuple[bytes, EntryAttributes, int]]:
        for number, (name, inode) in enumerate(list(self._names.items()), 1):
            if number > offset:
                yield name, self.getattr(inode, None), number

    def read(self, fh: int, offset: int, size: int) -> bytes:
        return bytes(self._files[fh][offset : offset + size])

    def write(self, fh: int, offset: int, data: bytes) -> int:
        _write(self._files[fh], offset, data)
        self._note(WRITE, fh, offset, bytes(data))
        return len(data)

    def fsync(self, fh: int, datasync: bool) -> None:
        self._note(FLUSH, fh)

    fsyncdir = fsync

    def flush(self, fh: int) -> None:
        pass

    def access(self, inode: int, mode: int, ctx: Any) -> bool:
        return True

    def statfs(self, ctx: Any) -> llfuse.StatvfsData:
        found = llfuse.StatvfsData()
        found.f_bsize = found.f_frsize = BLOCK
        found.f_blocks = found.f_bfree = found.f_bavail = 1 << 20
        found.f_files = found.f_ffree = found.f_favail = 1 << 20
        found.f_namemax = 255
        return found


def _resize(content: bytearray, size: int) -> None:
    del content[size:]
    content.extend(bytes(size - len(content)))


def _write(content: bytearray, offset: int, data: bytes) -> None:
    if len(content) < offset:
        _resize(content, offset)
    content[offset : offset + len(data)] = data


class Entry(NamedTuple):
    """One note of the journal; `end` is how long the journal was then."""

    what: bytes
    inode: int
    number: int
    data: bytes
    end: int


def entries(log: Path) -> list[Entry]:
    """All that a recording noted."""
    raw, found, at = log.read_bytes(), [], 0
    while at < len(raw):
        what, inode, number, length = _HEAD.unpack_from(raw, at)
        at += _HEAD.size
        found.append(Entry(what, inode, number, raw[at : at + length], at + length))
        at += length
    return found


class Disk:
    """A disk being written: what a flush has made last, and what a cut may still undo.

    What is in its cache it may have written or not, block by block, in any order.
    """

    def __init__(self) -> None:
        self.names: dict[bytes, int] = {}
        self.files: dict[int, bytearray] = {}
        self._cached: list[Entry] = []

    def take(self, entry: Entry) -> None:
        """The next note."""
        if entry.what != FLUSH:
            self._cached.append(entry)
            return
        for cached in self._cached:
            _apply(self.names, self.files, cached)
        self._cached.clear()

    def cut(self, directory: Path, chance: random.Random | None) -> None:
        """Write the files as they are when the power is cut now into `directory`: with all that is
        in the cache, or by `chance` with some of it."""
        names, files = dict(self.names), dict(self.files)
        for inode in {entry.inode for entry in self._cached} & files.keys():
            files[inode] = bytearray(files[inode])
        for entry in self._cached:
            if chance is None or entry.what in (CREATE, TRUNCATE):
                _apply(names, files, entry)
            elif entry.what != WRITE:
                if chance.random() < 0.5:
                    _apply(names, files, entry)
            else:
                kept = chance.choice([0.0, 0.5, 0.9, 1.0])
                for at in range(0, len(entry.data), BLOCK):
                    if chance.random() < kept:
                        _write(files[entry.inode], entry.number + at, entry.data[at : at + BLOCK])
        for name, inode in names.items():
            (directory / os.fsdecode(name)).write_bytes(files[inode])


def _apply(names: dict[bytes, int], files: dict[int, bytearray], entry: Entry) -> None:
    if entry.what == CREATE:
        names[entry.data], files[entry.inode] = entry.inode, bytearray()
    elif entry.what == WRITE:
        _write(files[entry.inode], entry.number, entry.data)
    elif entry.what == TRUNCATE:
        _resize(files[entry.inode], entry.number)
    elif entry.what == RENAME:
        old, _, new = entry.data.partition(b"/")
        names[new] = names.pop(old)
    elif entry.what == UNLINK:
        names.pop(entry.data, None)
