"""A file system whose handlers do what handlers must not."""

import errno
import os
import stat
from collections.abc import Callable
from typing import Any, NoReturn

import llfuse
from llfuse import FUSEError


def _raises(error: BaseException) -> Callable[[], NoReturn]:
    def fail() -> NoReturn:
        raise error

    return fail


def _recurse() -> Any:
    return _recurse()


RAISED: dict[str, Callable[[], Any]] = {
    "value": lambda: int("x"),
    "assertion": _raises(AssertionError()),
    "exit": _raises(SystemExit(3)),
    "interrupt": _raises(KeyboardInterrupt()),
    "memory": _raises(MemoryError()),
    "stop": _raises(StopIteration()),
    "os": _raises(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))),
    "os-without-number": _raises(OSError("x")),
    "error-600": _raises(FUSEError(600)),
    "error-0": _raises(FUSEError(0)),
    "error-negative": _raises(FUSEError(-5)),
    "error-huge": _raises(FUSEError(2**31 - 1)),
    "recursion": _recurse,
}
RETURNED: dict[str, Callable[[], Any]] = {
    "none": lambda: None,
    "object": object,
    "text": lambda: "text",
    "number": lambda: -1,
}
KINDS = RAISED | RETURNED
ORDER = list(KINDS)
FIRST = {"file": 1000, "open": 2000, "directory": 3000, "list": 4000}
ROOT = 1


class Misbehaving(llfuse.Operations):
    """The root holds NAME-KIND: a `file` and a `directory` with which everything but getattr goes
    wrong, `open` and `list` that can be opened, and `lookup`, which cannot even be looked up."""

    def _entry(self, inode: int) -> llfuse.EntryAttributes:
        entry = llfuse.EntryAttributes()
        entry.st_ino = inode
        directory = inode == ROOT or inode >= FIRST["directory"]
        entry.st_mode = (stat.S_IFDIR if directory else stat.S_IFREG) | 0o777
        entry.st_nlink = 1
        entry.st_size = 100
        entry.entry_timeout = entry.attr_timeout = 0
        return entry

    def _misbehave(self, inode: int) -> Any:
        return KINDS[ORDER[inode % 1000]]()

    def lookup(self, parent: int, name: bytes, ctx: Any) -> Any:
        what, _, kind = name.decode().partition("-")
        if what == "lookup":
            return KINDS[kind]()
        if kind not in KINDS or parent != ROOT:
            raise FUSEError(errno.ENOENT)
        return self._entry(FIRST[what] + ORDER.index(kind))

    def getattr(self, inode: int, ctx: Any) -> Any:
        return self._entry(inode)

    def open(self, inode: int, flags: int, ctx: Any) -> Any:
        return inode if inode // 1000 == 2 else self._misbehave(inode)

    def opendir(self, inode: int, ctx: Any) -> Any:
        return inode if inode == ROOT or inode // 1000 == 4 else self._misbehave(inode)

    def readdir(self, fh: int, offset: int) -> Any:
        return iter(()) if fh == ROOT else self._misbehave(fh)

    def access(self, inode: int, mode: int, ctx: Any) -> bool:
        return True

    def forget(self, inodes: Any) -> NoReturn:
        raise ValueError("forget")

    def getxattr(self, inode: int, name: bytes, ctx: Any = None) -> Any:
        if inode == ROOT or name.startswith(b"security."):
            raise FUSEError(llfuse.ENOATTR)
        return self._misbehave(inode)

    def rename(self, parent: int, name: bytes, new: int, new_name: bytes, ctx: Any) -> Any:
        return self._misbehave(new)

    def link(self, inode: int, parent: int, name: bytes, ctx: Any) -> Any:
        return self._misbehave(parent)

    def releasedir(self, fh: int) -> Any:
        return None if fh == ROOT else self._misbehave(fh)


def _of_first(self: Misbehaving, inode: int, *_: Any) -> Any:
    return self._misbehave(inode)


for _name in (
    *("setattr", "readlink", "read", "write", "flush", "fsync", "fsyncdir", "release", "symlink"),
    *("setxattr", "listxattr", "removexattr", "unlink", "rmdir", "mkdir", "mknod", "create"),
):
    setattr(Misbehaving, _name, _of_first)
