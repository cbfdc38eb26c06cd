"""static: a fixed tree of read-only files, as the configuration spells it out.

The numbers of the inodes are the places of the entries in the list, so that a successor with the
same options serves the same tree; it has nothing else to restore.
"""

import base64
import errno
import hashlib
import os
import stat
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import llfuse
from llfuse import EntryAttributes, FUSEError

from fused.errors import WorkerFailed
from fused.filesystems.survival import Features, KnownInodes, OpenHandle, Record

ROOT = 1
NAME_MAX = 255
TIMEOUT = 86400.0  # seconds; nothing ever changes
TYPES = {"directory": stat.S_IFDIR, "symlink": stat.S_IFLNK}


class Static(llfuse.Operations):
    """Option `files`: the entries [path, kind, mode, payload] of `fused.filesystems.tree`.

    Invariants (`check`): each inode but the root is in one directory, under one name.
    """

    features = Features(("CACHE_SYMLINKS",), threads=1)
    read_only = True

    def __init__(self, files: list[list[Any]]) -> None:
        super().__init__()
        self._entries = files
        self._digest = hashlib.sha256(repr(files).encode("utf-8", "replace")).digest()[:16]
        self._made = time.time_ns()
        self._children: dict[int, dict[bytes, int]] = {}
        self._parents: dict[int, int] = {ROOT: ROOT}
        self._content: dict[int, bytes] = {}
        self._record: Record
        nodes: dict[str, int] = {}
        for node, (path, kind, _, payload) in enumerate(files, ROOT):
            if kind == "directory":
                self._children[node] = {}
                nodes[path] = node
            elif kind != "from":
                self._content[node] = _content(kind, payload)
            if node != ROOT:
                above, _, name = path.rpartition("/")
                self._children[nodes[above]][os.fsencode(name)] = node
                self._parents[node] = nodes[above]

    def attach(self, record: Record, descriptors: dict[str, int]) -> None:
        self._record = record

    def restore(self, inodes: KnownInodes, handles: Iterable[OpenHandle]) -> None:
        for node in inodes:
            if node > len(self._entries) or inodes.key(node) != self._digest:
                raise WorkerFailed("its files have changed in the configuration")

    def key(self, inode: int) -> bytes:
        return self._digest

    def peek(self, parent: int, name: bytes) -> int:
        return self._children.get(parent, {}).get(name, 0)

    def lookup(self, parent: int, name: bytes, ctx: Any) -> EntryAttributes:
        if len(name) > NAME_MAX:
            raise FUSEError(errno.ENAMETOOLONG)
        node = self._children[parent].get(name)
        if node is None:
            missing = EntryAttributes()
            missing.st_ino = 0
            missing.entry_timeout = TIMEOUT
            return missing
        return self.getattr(node, ctx)

    def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        pass

    def getattr(self, inode: int, ctx: Any) -> EntryAttributes:
        _, kind, mode, _ = self._entries[inode - ROOT]
        entry = EntryAttributes()
        entry.st_ino = inode
        entry.st_mode = TYPES.get(kind, stat.S_IFREG) | mode
        if kind == "directory":
            children = self._children[inode].values()
            entry.st_nlink = 2 + sum(child in self._children for child in children)
        else:
            entry.st_size = len(self._bytes(inode))
            entry.st_blocks = (entry.st_size + 511) // 512
        entry.st_atime_ns = entry.st_mtime_ns = entry.st_ctime_ns = self._made
        entry.attr_timeout = entry.entry_timeout = TIMEOUT
        return entry

    def _bytes(self, inode: int) -> bytes:
        """Content; that of a file beside the configuration is read when it is first asked for."""
        content = self._content.get(inode)
        if content is None:
            with open(self._entries[inode - ROOT][3], "rb") as file:
                content = self._content[inode] = file.read()
        return content

    def readlink(self, inode: int, ctx: Any) -> bytes:
        return self._content[inode]

    def access(self, inode: int, mode: int, ctx: Any) -> bool:
        return True

    def open(self, inode: int, flags: int, ctx: Any) -> int:
        if flags & os.O_ACCMODE != os.O_RDONLY or flags & os.O_TRUNC:
            raise FUSEError(errno.EROFS)
        self._bytes(inode)
        return self._handle(inode)

    def _handle(self, inode: int) -> int:
        """A handle tells its inode, and a fresh number, so that none is shared."""
        return inode << 32 | self._record.next_handle() & 0xFFFFFFFF

    def read(self, fh: int, offset: int, size: int) -> bytes:
        return self._bytes(fh >> 32)[offset : offset + size]

    def flush(self, fh: int) -> None:
        pass

    def fsync(self, fh: int, datasync: bool) -> None:
        pass

    def release(self, fh: int) -> None:
        pass

    def opendir(self, inode: int, ctx: Any) -> int:
        return self._handle(inode)

    def readdir(self, fh: int, offset: int) -> Iterator[tuple[bytes, EntryAttributes, int]]:
        inode = fh >> 32
        here = [(b".", inode), (b"..", self._parents[inode]), *self._children[inode].items()]
        entry = EntryAttributes()
        for place in range(offset, len(here)):
            name, node = here[place]
            entry.st_ino = node
            entry.st_mode = TYPES.get(self._entries[node - ROOT][1], stat.S_IFREG)
            yield name, entry, place + 1

    def fsyncdir(self, fh: int, datasync: bool) -> None:
        pass

    def releasedir(self, fh: int) -> None:
        pass

    def statfs(self, ctx: Any) -> llfuse.StatvfsData:
        stat_ = llfuse.StatvfsData()
        stat_.f_bsize = stat_.f_frsize = 4096
        stat_.f_blocks = sum((len(data) + 4095) // 4096 for data in self._content.values())
        stat_.f_files = len(self._entries)
        stat_.f_namemax = NAME_MAX
        return stat_

    def getxattr(self, inode: int, name: bytes, ctx: Any = None) -> bytes:
        raise FUSEError(errno.ENODATA)

    def listxattr(self, inode: int, ctx: Any) -> list[bytes]:
        return []

    def check(self) -> None:
        """Run the invariants; AssertionError when one does not hold."""
        places = [node for names in self._children.values() for node in names.values()]
        assert sorted(places) == list(range(ROOT + 1, len(self._entries) + ROOT))


def _content(kind: str, payload: str) -> bytes:
    if kind == "base64":
        return base64.b64decode(payload)
    return os.fsencode(payload) if kind == "symlink" else payload.encode()
