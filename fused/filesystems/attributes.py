"""The attributes of a source's files, extended ones too: the part of passthrough without names.

Everything acts on a descriptor's path in /proc/self/fd, which leads to the file itself, also to a
symlink, and never through one.
"""

import errno
import os
import stat
from math import inf
from time import monotonic
from typing import Any

import llfuse
from llfuse import EntryAttributes, FUSEError

from fused.filesystems import syscalls
from fused.filesystems.source import Source
from fused.filesystems.survival import Record

CAPABILITY = b"security.capability"
MADE = 64  # files just made that are remembered
WRITTEN = 1 << 16  # inodes, at most, that are remembered as written to
MAPPED_SECONDS = 0.5  # that attributes last of what a mapping may change
TOLD = 1 << 14  # files, at most, whose state as it was told to the kernel is remembered
XFS_ACL = b"trusted.SGI_ACL_"  # how xfs shows root its access control lists, once more


def _state(node: int, st: os.stat_result) -> int:
    """A number that changes when a file's content or attributes do."""
    return hash((node, st.st_mtime_ns, st.st_ctime_ns, st.st_size))


def _privileges(mode: int) -> int:
    """The bits that a change by others takes away."""
    return mode & (stat.S_ISUID | (stat.S_ISGID if mode & stat.S_IXGRP else 0))


class AttributeHandlers(llfuse.Operations):
    """Handlers of requests about one inode's attributes."""

    def __init__(self) -> None:
        super().__init__()
        self._told = [0] * TOLD  # `_state` of the last inode with that place
        self._written: set[int] = set()  # inodes that were open for writing
        self._knows_written = True  # that these are all
        self._made: dict[int, float] = {}  # inode -> time of making

    _record: Record
    _source: Source
    _files: dict[int, int]  # fh -> descriptor
    _exclusive: bool  # whether nobody else changes the source
    _timeout: float  # seconds that the kernel may believe attributes and names

    def _attributes(self, st: os.stat_result, node: int) -> EntryAttributes:
        entry = EntryAttributes()
        entry.st_ino = node
        entry.st_mode = st.st_mode
        entry.st_nlink = st.st_nlink
        entry.st_uid = st.st_uid
        entry.st_gid = st.st_gid
        entry.st_rdev = st.st_rdev
        entry.st_size = st.st_size
        entry.st_blocks = st.st_blocks
        entry.st_blksize = st.st_blksize
        entry.st_atime_ns = st.st_atime_ns
        entry.st_mtime_ns = st.st_mtime_ns
        entry.st_ctime_ns = st.st_ctime_ns
        entry.entry_timeout = self._timeout
        if self._record.written(node):
            entry.attr_timeout = 0.0
        else:
            lasting = self._timeout <= MAPPED_SECONDS or not self._may_be_mapped(node)
            entry.attr_timeout = self._timeout if lasting else MAPPED_SECONDS
        if not self._exclusive:
            self._told[node % TOLD] = _state(node, st)
        return entry

    def _note_written(self, node: int) -> None:
        """The file is open for writing, and the kernel does not ask for what is written."""
        if self._knows_written:
            self._written.add(node)
            if len(self._written) > WRITTEN:
                self._knows_written = False
                self._written.clear()

    def _may_be_mapped(self, node: int) -> bool:
        """Whether a mapping may change the file without our or the kernel's FUSE noticing: it
        outlives its descriptor, and this process."""
        return not self._knows_written or node in self._written

    def _is_told(self, node: int, st: os.stat_result) -> bool:
        """Whether this is what the kernel was told of the inode last, as far as is remembered."""
        return self._told[node % TOLD] == _state(node, st)

    def _proc_path(self, inode: int) -> bytes:
        return b"/proc/self/fd/%d" % self._source.path_fd(inode)

    def getattr(self, inode: int, ctx: Any) -> EntryAttributes:
        return self._attributes(os.fstat(self._source.path_fd(inode)), inode)

    def setattr(
        self, inode: int, attr: EntryAttributes, fields: Any, fh: int | None, ctx: Any
    ) -> EntryAttributes:
        fd = self._files[fh] if fh in self._files else self._source.path_fd(inode)
        path = b"/proc/self/fd/%d" % fd
        times = fields.update_atime or fields.update_mtime
        if fields.update_size:
            os.truncate(path, attr.st_size)
            if ctx.uid != 0:  # the kernel does not say so in a truncation
                self.drop_privileges(path)
        elif fields.update_uid or fields.update_gid or not (fields.update_mode or times):
            if not (fields.update_uid or fields.update_gid):
                self._may_lose_privileges(inode, fd, ctx)
            uid = attr.st_uid if fields.update_uid else -1
            gid = attr.st_gid if fields.update_gid else -1
            os.chown(path, uid, gid)
        if fields.update_mode:
            os.chmod(path, stat.S_IMODE(attr.st_mode))
        if times:
            atime = attr.st_atime_ns if fields.update_atime else None
            mtime = attr.st_mtime_ns if fields.update_mtime else None
            syscalls.utimens(path, atime, mtime)
        return self._attributes(os.fstat(fd), inode)

    def _may_lose_privileges(self, inode: int, fd: int, ctx: Any) -> None:
        """A request that sets nothing, but clears suid and sgid, is chown(-1, -1), which takes the
        owner, or comes before a write, which needs no more than an open file.  OSError EPERM."""
        st = os.fstat(fd)
        allowed = ctx.uid in (0, st.st_uid) or self._record.open_handles(inode)
        if not allowed and _privileges(st.st_mode):
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    @staticmethod
    def drop_privileges(path: bytes) -> None:
        """Clear suid and sgid as the kernel does for a writer without CAP_FSETID."""
        mode = os.stat(path).st_mode
        if kill := _privileges(mode):
            os.chmod(path, stat.S_IMODE(mode & ~kill))

    def readlink(self, inode: int, ctx: Any) -> bytes:
        return os.readlink(b"", dir_fd=self._source.path_fd(inode))

    def access(self, inode: int, mode: int, ctx: Any) -> bool:
        return True

    def statfs(self, ctx: Any) -> llfuse.StatvfsData:
        here, stat_ = os.fstatvfs(self._source.root), llfuse.StatvfsData()
        stat_.f_bsize, stat_.f_frsize = here.f_bsize, here.f_frsize
        stat_.f_blocks, stat_.f_bfree, stat_.f_bavail = here.f_blocks, here.f_bfree, here.f_bavail
        stat_.f_files, stat_.f_ffree, stat_.f_favail = here.f_files, here.f_ffree, here.f_favail
        stat_.f_namemax = here.f_namemax
        return stat_

    def note_made(self, inode: int) -> None:
        """The inode is a new file's: the kernel will ask for its capabilities at the first write,
        and is told at once that there are none."""
        if len(self._made) >= MADE:
            del self._made[next(iter(self._made))]
        self._made[inode] = monotonic()

    def getxattr(self, inode: int, name: bytes, ctx: Any = None) -> bytes:
        if name == CAPABILITY and monotonic() - self._made.pop(inode, -inf) < self._timeout:
            raise FUSEError(errno.ENODATA)
        return os.getxattr(self._proc_path(inode), name)

    def setxattr(self, inode: int, name: bytes, value: bytes, ctx: Any) -> None:
        self._made.pop(inode, None)
        os.setxattr(self._proc_path(inode), name, value)
        self._note_change(inode, name)

    def listxattr(self, inode: int, ctx: Any) -> list[bytes]:
        names = [os.fsencode(name) for name in os.listxattr(self._proc_path(inode))]
        if ctx.uid != 0:  # as xattr(7) has it
            names = [name for name in names if not name.startswith(b"trusted.")]
        return names

    def removexattr(self, inode: int, name: bytes, ctx: Any) -> None:
        os.removexattr(self._proc_path(inode), name)
        self._note_change(inode, name)

    def _note_change(self, inode: int, name: bytes) -> None:
        if name.startswith(XFS_ACL):
            self._record.invalidate(inode)  # with the list that the kernel has cached
