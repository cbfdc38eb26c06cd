"""Ways to store what a file system in memory holds, each as its handlers would use it.

All have one directory, and what a request needs of it.  They are as short as they can be to be
measured, and leave out what costs a whole one more: hard links, extended attributes, truncation.
"""

import os
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import native

from bench.trees import Rows, Sqlite
from fused.filesystems import syscalls


class Store(Protocol):
    """One candidate; closing it frees what it holds."""

    survives: str
    """Whether the death of its process leaves it consistent, and by what."""

    def make(self, name: bytes, content: bytes) -> None:
        """Make a file, open it, write, close."""

    def look(self, name: bytes) -> Any:
        """The attributes of what the name holds."""

    def open(self, name: bytes) -> int:
        """A handle for `read` and `write`."""

    def read(self, handle: int, offset: int, size: int) -> bytes: ...

    def write(self, handle: int, offset: int, data: bytes) -> None: ...

    def rename(self, old: bytes, new: bytes) -> None: ...

    def unlink(self, name: bytes) -> None: ...

    def names(self) -> int:
        """Read the directory; how many entries there are, without "." and ".."."""

    def succeed(self) -> None:
        """Forget what only the process holds, and do what a successor has to do first."""

    def close(self) -> None: ...


class Calls:
    """System calls below a directory, as passthrough does them."""

    survives = "yes: a system call is done or not"

    def __init__(self, root: int) -> None:
        self._root = root
        self._open: list[int] = []

    def make(self, name: bytes, content: bytes) -> None:
        flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_NOFOLLOW
        fd = os.open(name, flags, 0o644, dir_fd=self._root)
        os.fstat(fd)
        syscalls.name_to_handle(self._root, name)
        if content:
            os.pwrite(fd, content, 0)
        os.close(fd)

    def look(self, name: bytes) -> os.stat_result:
        st = os.stat(name, dir_fd=self._root, follow_symlinks=False)
        syscalls.name_to_handle(self._root, name)
        return st

    def open(self, name: bytes) -> int:
        self._open.append(os.open(name, os.O_RDWR, dir_fd=self._root))
        return self._open[-1]

    def read(self, handle: int, offset: int, size: int) -> bytes:
        return os.pread(handle, size, offset)

    def write(self, handle: int, offset: int, data: bytes) -> None:
        os.pwrite(handle, data, offset)

    def rename(self, old: bytes, new: bytes) -> None:
        os.rename(old, new, src_dir_fd=self._root, dst_dir_fd=self._root)

    def unlink(self, name: bytes) -> None:
        os.unlink(name, dir_fd=self._root)

    def names(self) -> int:
        os.lseek(self._root, 0, os.SEEK_SET)
        count = 0
        while entries := syscalls.getdents(self._root):
            count += len(entries)
        return count - 2

    def succeed(self) -> None: ...

    def close(self) -> None:
        for fd in (*self._open, self._root):
            os.close(fd)


class Tmpfs(Calls):
    """A tmpfs that is mounted nowhere."""

    def __init__(self) -> None:
        mount = syscalls.detached("tmpfs", {"mode": "0755", "size": "8g", "nr_inodes": "0"})
        super().__init__(os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=mount))
        os.close(mount)


class Ext4(Calls):
    """An ext4 without a journal, small content in the inodes, in an image on a tmpfs."""

    def __init__(self) -> None:
        with ExitStack() as stack:
            place = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/var/tmp")))
            stack.enter_context(native.tmpfs(place / "tmpfs", "size=8g"))
            options = ("-O", "^has_journal,inline_data", "-m", "0", "-N", "300000")
            image = native.on_image(
                "ext4", place / "tmpfs/ext4", options=options, size=4 << 30, direct=True
            )
            path = stack.enter_context(image)
            work = path / "work"
            work.mkdir()
            super().__init__(os.open(work, os.O_RDONLY | os.O_DIRECTORY))
            self._stack = stack.pop_all()

    def close(self) -> None:
        super().close()
        self._stack.close()


CANDIDATES: dict[str, type[Store]] = {
    "tmpfs": Tmpfs,
    "SQLite": Sqlite,
    "ext4 on tmpfs": Ext4,
    "rows in a mapping": Rows,
}
