"""A small language of system calls: what a client of a file system may say, as data.

The same sequence is carried out in two directories, and what comes out must be the same: results,
error numbers, and the two trees at the end.
"""

import errno
import os
import stat
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

USER = 60001
OUTCOME_LIMIT = 1 << 20


class Call(NamedTuple):
    """One system call by `uid`; paths are relative to the directory it is carried out in."""

    name: str
    arguments: tuple[Any, ...] = ()
    uid: int = 0


class World:
    """A directory, and the descriptors that the calls so far have opened in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.open: dict[int, int] = {}

    def do(self, call: Call) -> Any:
        """What the call returns, or ("error", name of the errno)."""
        handler: Callable[..., Any] = getattr(self, f"_{call.name}")
        try:
            if call.uid:
                os.setegid(call.uid)
                os.seteuid(call.uid)
            return handler(*call.arguments)
        except OSError as error:
            return "error", errno.errorcode.get(error.errno or 0, error.errno)
        finally:
            os.seteuid(0)
            os.setegid(0)

    def close(self) -> None:
        """Close what is open."""
        for fd in self.open.values():
            os.close(fd)
        self.open.clear()

    def _at(self, path: str) -> str:
        return f"{self.root}/{path}"

    # -- names

    def _create(self, path: str, mode: int) -> None:
        os.close(os.open(self._at(path), os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode))

    def _mkdir(self, path: str, mode: int) -> None:
        os.mkdir(self._at(path), mode)

    def _mkfifo(self, path: str, mode: int) -> None:
        os.mkfifo(self._at(path), mode)

    def _mknod(self, path: str, mode: int, device: int) -> None:
        os.mknod(self._at(path), mode, device)

    def _symlink(self, target: str, path: str) -> None:
        os.symlink(target, self._at(path))

    def _link(self, old: str, new: str) -> None:
        os.link(self._at(old), self._at(new))

    def _rename(self, old: str, new: str) -> None:
        os.rename(self._at(old), self._at(new))

    def _unlink(self, path: str) -> None:
        os.unlink(self._at(path))

    def _rmdir(self, path: str) -> None:
        os.rmdir(self._at(path))

    # -- attributes

    def _chmod(self, path: str, mode: int) -> None:
        os.chmod(self._at(path), self._permitted(mode))

    def _permitted(self, mode: int) -> int:
        """While files are open no suid and sgid bits are given: a write takes them by the rights
        of who opened the file first, not of the writer, where the kernel passes writes through."""
        return mode & ~0o6000 if self.open else mode

    def _chown(self, path: str, uid: int, gid: int) -> None:
        os.chown(self._at(path), uid, gid, follow_symlinks=False)

    def _utime(self, path: str, atime: int, mtime: int) -> None:
        os.utime(self._at(path), ns=(atime, mtime), follow_symlinks=False)

    def _truncate(self, path: str, size: int) -> None:
        os.truncate(self._at(path), _other_size(os.stat(self._at(path)), size))

    def _setxattr(self, path: str, name: str, value: bytes, flags: int) -> None:
        os.setxattr(self._at(path), name, value, flags)

    def _removexattr(self, path: str, name: str) -> None:
        os.removexattr(self._at(path), name)

    # -- looking

    def _stat(self, path: str) -> Any:
        return attributes(os.stat(self._at(path)))

    def _readlink(self, path: str) -> str:
        return os.readlink(self._at(path))

    def _listdir(self, path: str) -> list[str]:
        return sorted(os.listdir(self._at(path)))

    def _getxattr(self, path: str, name: str) -> bytes:
        return os.getxattr(self._at(path), name)

    def _read(self, path: str) -> bytes:
        fd = os.open(self._at(path), os.O_RDONLY | os.O_NONBLOCK)
        try:
            return os.read(fd, OUTCOME_LIMIT)
        finally:
            os.close(fd)

    def _access(self, path: str, mode: int) -> bool:
        return os.access(self._at(path), mode, effective_ids=True)

    # -- descriptors, each in a numbered slot

    def _open(self, slot: int, path: str, flags: int, mode: int) -> None:
        fd = os.open(self._at(path), flags | os.O_NONBLOCK, mode)
        self._close(slot)
        self.open[slot] = fd

    def _close(self, slot: int) -> None:
        if slot in self.open:
            os.close(self.open.pop(slot))

    def _pwrite(self, slot: int, content: bytes, offset: int) -> int | None:
        return os.pwrite(self.open[slot], content, offset) if slot in self.open else None

    def _write(self, slot: int, content: bytes) -> int | None:
        return os.write(self.open[slot], content) if slot in self.open else None

    def _pread(self, slot: int, size: int, offset: int) -> bytes | None:
        return os.pread(self.open[slot], size, offset) if slot in self.open else None

    def _ftruncate(self, slot: int, size: int) -> None:
        if slot in self.open:
            os.ftruncate(self.open[slot], _other_size(os.fstat(self.open[slot]), size))

    def _fchmod(self, slot: int, mode: int) -> None:
        if slot in self.open:
            os.fchmod(self.open[slot], self._permitted(mode))

    def _fsync(self, slot: int) -> None:
        if slot in self.open:
            os.fsync(self.open[slot])

    def _fstat(self, slot: int) -> Any:
        return attributes(os.fstat(self.open[slot])) if slot in self.open else None

    def _pause(self) -> None:
        time.sleep(0.015)


def _other_size(st: os.stat_result, size: int) -> int:
    """`size`, or one more if that would be no change: file systems differ in its effect."""
    return size + (st.st_size == size)


def attributes(st: os.stat_result) -> tuple[str, ...]:
    """What must be the same everywhere: not numbers, times and blocks."""
    size = "-" if stat.S_ISDIR(st.st_mode) else st.st_size
    mode, links, owner = stat.filemode(st.st_mode), st.st_nlink, f"{st.st_uid}:{st.st_gid}"
    return mode, f"links {links}", owner, f"size {size}", f"device {st.st_rdev}"


class Node(NamedTuple):
    """One name of a tree."""

    attributes: tuple[str, ...]
    content: bytes | str | None
    xattrs: tuple[tuple[str, bytes], ...]
    same_as: str  # the first name of the same file
    mtime_ns: int


def tree(root: Path) -> dict[str, Node]:
    """Everything below `root` by its path, in order."""
    nodes: dict[str, Node] = {}
    first: dict[int, str] = {}
    for directory, names, files in os.walk(root):
        names.sort()
        for name in sorted([*names, *files]):
            path = os.path.join(directory, name)
            relative = os.path.relpath(path, root)
            st = os.lstat(path)
            nodes[relative] = Node(
                attributes(st),
                _content(path, st.st_mode),
                _xattrs(path),
                first.setdefault(st.st_ino, relative),
                st.st_mtime_ns,
            )
    return nodes


def _content(path: str, mode: int) -> bytes | str | None:
    if stat.S_ISREG(mode):
        return Path(path).read_bytes()
    return os.readlink(path) if stat.S_ISLNK(mode) else None


def _xattrs(path: str) -> tuple[tuple[str, bytes], ...]:
    names = sorted(os.listxattr(path, follow_symlinks=False))
    return tuple(
        (name, os.getxattr(path, name, follow_symlinks=False))
        for name in names
        if name.startswith(("user.", "trusted.", "system."))
    )


TICK = 10_000_000  # ns: stamps may differ by a tick of the kernel's clock


def differences(
    ours: dict[str, Node], plain: dict[str, Node], began: int, in_order: bool = True
) -> list[str]:
    """Where two trees differ, a line each.  Times set from outside (before `began`, ns) must be
    equal; others need only be in the same order, if `in_order`."""
    found = [f"{path} is only in one" for path in ours.keys() ^ plain.keys()]
    both = sorted(ours.keys() & plain.keys())
    for path in both:
        left, right = ours[path], plain[path]
        for field in ("attributes", "content", "xattrs", "same_as"):
            if getattr(left, field) != getattr(right, field):
                found.append(f"{path}: {field} {getattr(left, field)!r:.300}")
                found.append(f"{path}: plain: {getattr(right, field)!r:.300}")
        if min(left.mtime_ns, right.mtime_ns) < began and left.mtime_ns != right.mtime_ns:
            found.append(f"{path}: mtime {left.mtime_ns}, plain: {right.mtime_ns}")
    # Not those of fifos: who writes to one writes nothing that a file system would hear of.
    stamped = [path for path in both if in_order and plain[path].attributes[0][0] != "p"]
    order = sorted(stamped, key=lambda path: plain[path].mtime_ns)
    for earlier, later in pairwise(order):
        apart = plain[later].mtime_ns - plain[earlier].mtime_ns
        if apart > TICK and ours[later].mtime_ns < ours[earlier].mtime_ns:
            found.append(f"{later} is older than {earlier}, but was changed after it")
    return found
