"""The words that the behaviours are written in."""

import errno
import os
import socket
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from forked import as_user

Result = TypeVar("Result")
Place = Path | str | bytes | int


class User(NamedTuple):
    """Somebody without privileges."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()

    def does(self, function: Callable[[], Result]) -> Result:
        """What `function` returns or raises when this user calls it."""
        return as_user(self.uid, self.gid, self.groups, function)

    def may(self, function: Callable[[], object]) -> bool:
        """Whether the function works for this user, and is not refused with EACCES or EPERM."""
        try:
            self.does(function)
        except PermissionError:
            return False
        return True

    def fails(self, number: int, function: Callable[[], object]) -> None:
        """Assert that the function fails for this user with just this errno."""
        with fails(number):
            self.does(function)

    def owns(self, path: Path) -> Path:
        """Make this user and the user's group the owner of `path` (of a symlink itself)."""
        os.chown(path, self.uid, self.gid, follow_symlinks=False)
        return path


ALICE = User(60001, 60001)
BOB = User(60002, 60002)
TEAM = 60100  # a group for `_replace(groups=...)`


def _names(numbers: tuple[int, ...]) -> str:
    return " or ".join(errno.errorcode.get(number, str(number)) for number in numbers)


@contextmanager
def fails(*numbers: int, about: object = "") -> Iterator[None]:
    """Assert that the block raises OSError with one of these numbers; `about` names the case."""
    try:
        yield
    except OSError as error:
        got = _names((error.errno or 0,))
        assert error.errno in numbers, f"{about} gives {got}, not {_names(numbers)}"
    else:
        raise AssertionError(f"{about} succeeds, {_names(numbers)} was due")


@contextmanager
def opened(path: Place, flags: int = os.O_RDONLY, mode: int = 0o644) -> Iterator[int]:
    """A descriptor for the time of the block."""
    fd = os.open(path, flags, mode)
    try:
        yield fd
    finally:
        os.close(fd)


def make(path: Path, content: bytes = b"", mode: int = 0o644) -> Path:
    """A new file with just this mode."""
    with opened(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600) as fd:
        written = 0
        while written < len(content):
            written += os.write(fd, memoryview(content)[written:])
        os.fchmod(fd, mode)
        os.fsync(fd)  # with write-back caching, times settle when data is written
    return path


def make_directory(path: Path, mode: int = 0o755) -> Path:
    """A new directory with just this mode, setgid and sticky bits too."""
    os.mkdir(path)
    os.chmod(path, mode)
    return path


def touch(path: Place, flags: int = os.O_RDONLY, mode: int = 0o644) -> None:
    """Open and close."""
    os.close(os.open(path, flags, mode))


def link_descriptor(fd: int, path: Path) -> None:
    """Give the open file one more name (linkat(2) with AT_SYMLINK_FOLLOW)."""
    with opened("/proc/self/fd") as directory:
        os.link(str(fd), path, src_dir_fd=directory, follow_symlinks=True)


def bind(path: Path) -> socket.socket:
    """A listening stream socket bound to `path`, whatever its length."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with opened(path.parent, os.O_PATH) as directory:
        sock.bind(f"/proc/self/fd/{directory}/{path.name}")
    sock.listen(1)
    return sock


DEVICE = os.makedev(240, 70001)

KINDS: dict[str, Callable[[Path], Any]] = {
    "file": make,
    "directory": make_directory,
    "symlink": lambda path: os.symlink("nowhere", path),
    "fifo": lambda path: os.mkfifo(path, 0o644),
    "socket": lambda path: os.mknod(path, stat.S_IFSOCK | 0o644),
    "char": lambda path: os.mknod(path, stat.S_IFCHR | 0o644, DEVICE),
    "block": lambda path: os.mknod(path, stat.S_IFBLK | 0o644, DEVICE),
}
NODES = {kind: maker for kind, maker in KINDS.items() if kind != "symlink"}


def mode_of(path: Place) -> int:
    """The twelve permission bits (of a symlink itself)."""
    return stat.S_IMODE(_stat(path).st_mode)


def _stat(path: Place) -> os.stat_result:
    return os.fstat(path) if isinstance(path, int) else os.lstat(path)


def tick() -> None:
    """Wait until the kernel stamps a later time on files than it did before the call."""
    clock = getattr(time, "CLOCK_REALTIME_COARSE", 5)
    start = time.clock_gettime_ns(time.CLOCK_REALTIME)
    while time.clock_gettime_ns(clock) <= start:
        time.sleep(0.001)


@contextmanager
def stamps(times: str, *paths: Place) -> Iterator[None]:
    """Assert that the block moves on exactly the `times` ("mtime ctime", "") of each path."""
    before = [_stat(path) for path in paths]
    tick()
    yield
    for path, old in zip(paths, before, strict=True):
        new = _stat(path)
        for name in ("mtime", "ctime"):
            earlier, later = getattr(old, f"st_{name}_ns"), getattr(new, f"st_{name}_ns")
            if name in times:
                assert later > earlier, f"{name} of {path!r} stays"
            else:
                assert later == earlier, f"{name} of {path!r} moves by {later - earlier} ns"


@contextmanager
def umask(mask: int) -> Iterator[None]:
    """Another umask for the time of the block."""
    old = os.umask(mask)
    try:
        yield
    finally:
        os.umask(old)
