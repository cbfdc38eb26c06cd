"""passthrough: a directory of another file system, as it is.

Every request becomes the system call that it came from, on the file that the inode is (never on a
path: see `source`).  With `cache: shared` others may change the source at any time; with
`cache: exclusive` only this mount does, so that the kernel may cache names and attributes for as
long as it likes.  Data is read and written by the kernel itself where it can.

The kernel has checked permissions (default_permissions) before a request gets here.  New files are
made with the caller's file system user, group and umask, so that the source's own rules on
set-group directories and default ACLs apply.  O_APPEND stays with the kernel, which tells each
write its offset: a write is then the same when it is done twice.
"""

import errno
import logging
import os
import stat
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from llfuse import EntryAttributes, FUSEError

from fused.errors import WorkerFailed
from fused.filesystems import syscalls
from fused.filesystems.directories import GONE, Directory, DirectoryHandlers
from fused.filesystems.files import FileHandlers
from fused.filesystems.source import Source
from fused.filesystems.survival import Features, KnownInodes, OpenHandle, Record

log = logging.getLogger(__name__)
NAME_MAX = 255
WRITE_BACK = "WRITEBACK_CACHE"
STACKED = {0x794C7630, 0x65735546}  # statfs(2): overlayfs, FUSE
SHARED_SECONDS, EXCLUSIVE_SECONDS, ABSENT_SECONDS = 0.5, 86400.0, 1.0
CREATED_SECONDS = 0.001  # for the kernel to open what was made, without asking for it first


class Passthrough(FileHandlers, DirectoryHandlers):
    """See the module.  Options: `source`, an absolute path; `cache`, "shared" or "exclusive"."""

    def __init__(self, source: str, cache: str = "shared") -> None:
        super().__init__()
        self._path = source
        self._exclusive = cache == "exclusive"
        self._timeout = EXCLUSIVE_SECONDS if self._exclusive else SHARED_SECONDS
        self._umask = -1
        # What was last seen of a name, for the change of it that follows most likely.
        self._peeked: tuple[int, bytes, os.stat_result | None, int] | None = None
        self._absent: tuple[int, bytes] | None = None
        self._nothing = EntryAttributes()  # no inode: the name is absent, and may be for a while
        self._nothing.entry_timeout = ABSENT_SECONDS if self._exclusive else 0.0
        self._record: Record
        self._source: Source

    @property
    def features(self) -> Features:
        flags = ("DONT_MASK", "POSIX_ACL", "HANDLE_KILLPRIV_V2", "CACHE_SYMLINKS")
        caching = WRITE_BACK if self._exclusive else "AUTO_INVAL_DATA"
        direct = () if self._is_stacked() else ("PASSTHROUGH",)
        return Features((*flags, *direct, caching), threads=4, relieved=True)

    def _is_stacked(self) -> bool:
        """Whether the source is on top of others, and the kernel cannot use its files itself."""
        try:
            root = os.open(self._path, os.O_PATH)
        except OSError:
            return False
        try:
            return syscalls.fs_type(root) in STACKED
        finally:
            os.close(root)

    # -- life ------------------------------------------------------------------------------------

    def attach(self, record: Record, descriptors: dict[str, int]) -> None:
        self._record = record
        syscalls.keep_capabilities()
        root = self._open_root(descriptors)
        self._in_memory = syscalls.fs_type(root) == syscalls.TMPFS
        self._source = Source(root, record, self._exclusive)
        self._source.adopt(descriptors)

    def _open_root(self, descriptors: dict[str, int]) -> int:
        try:
            return os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise WorkerFailed(
                f"cannot open the source {self._path}: {error.strerror}; make the directory, or "
                "correct 'source' in the configuration"
            ) from None

    def restore(self, inodes: KnownInodes, handles: Iterable[OpenHandle]) -> None:
        self._source.restore()
        self._knows_written = False  # which were open for writing before
        for handle in handles:
            flags = (
                os.O_RDONLY | os.O_DIRECTORY if handle.directory else handle.flags & ~os.O_TRUNC
            )
            try:
                fd = self._open_file(handle.node, flags)
            except OSError as error:
                # Others have removed the file meanwhile: an error of its users, not of the mount.
                log.warning("an open file of inode %d is gone: %s", handle.node, error.strerror)
                fd = GONE
            if handle.directory:
                self._directories[handle.fh] = Directory(fd)
            else:
                self._files[handle.fh] = fd

    def key(self, inode: int) -> bytes:
        return self._source.key(inode)

    def peek(self, parent: int, name: bytes) -> int:
        st, node = None, 0
        if self._absent != (parent, name):
            try:
                directory = self._source.path_fd(parent)
                st = os.stat(name, dir_fd=directory, follow_symlinks=False)
                node = self._source.identify(parent, name, st)
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.ENAMETOOLONG, errno.ENOTDIR):
                    raise
        self._peeked = parent, name, st, node
        return node

    # -- names -----------------------------------------------------------------------------------

    def lookup(self, parent: int, name: bytes, ctx: Any) -> EntryAttributes:
        if len(name) > NAME_MAX:
            raise FUSEError(errno.ENAMETOOLONG)
        try:
            return self._entry(parent, name)
        except FileNotFoundError:
            self._absent = parent, name
            return self._nothing

    def _entry(self, parent: int, name: bytes) -> EntryAttributes:
        st = os.stat(name, dir_fd=self._source.path_fd(parent), follow_symlinks=False)
        return self._identified(parent, name, st)

    def _identified(self, parent: int, name: bytes, st: os.stat_result) -> EntryAttributes:
        node = self._source.identify(parent, name, st)
        entry = self._attributes(st, node)
        if generation := self._source.generation(node):
            entry.generation = generation
        return entry

    def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        for node, _ in inode_list:
            self._source.forget(node)

    def _as(self, ctx: Any) -> None:
        """Become the caller for a call that makes a file, until `_as_root`."""
        self._peeked = self._absent = None
        if ctx.umask != self._umask:
            os.umask(ctx.umask)
            self._umask = ctx.umask
        if ctx.uid or ctx.gid:
            syscalls.setfsgid(ctx.gid)
            syscalls.setfsuid(ctx.uid)

    @staticmethod
    def _as_root(ctx: Any) -> None:
        if ctx.uid or ctx.gid:
            syscalls.setfsuid(0)
            syscalls.setfsgid(0)

    def mkdir(self, parent: int, name: bytes, mode: int, ctx: Any) -> EntryAttributes:
        directory = self._source.path_fd(parent)
        self._as(ctx)
        try:
            os.mkdir(name, mode, dir_fd=directory)
        finally:
            self._as_root(ctx)
        return self._entry(parent, name)

    def mknod(self, parent: int, name: bytes, mode: int, rdev: int, ctx: Any) -> EntryAttributes:
        directory = self._source.path_fd(parent)
        self._as(ctx)
        try:
            os.mknod(name, mode, rdev, dir_fd=directory)
        finally:
            self._as_root(ctx)
        return self._entry(parent, name)

    def symlink(self, parent: int, name: bytes, target: bytes, ctx: Any) -> EntryAttributes:
        directory = self._source.path_fd(parent)
        self._as(ctx)
        try:
            os.symlink(target, name, dir_fd=directory)
        finally:
            self._as_root(ctx)
        return self._entry(parent, name)

    def create(
        self, parent: int, name: bytes, mode: int, flags: int, ctx: Any
    ) -> tuple[int, EntryAttributes]:
        directory = self._source.path_fd(parent)
        wanted = self._backing_flags(flags) | flags & os.O_EXCL | os.O_CREAT | os.O_NOFOLLOW
        self._as(ctx)
        try:
            fd = os.open(name, wanted, mode, dir_fd=directory)
        finally:
            self._as_root(ctx)
        try:
            st = os.fstat(fd)
            entry = self._identified(parent, name, st)
        except BaseException:
            os.close(fd)
            raise
        self.note_made(entry.st_ino)
        fh = self._opened(entry.st_ino, fd, flags, st, ctx)
        if self._record.written(entry.st_ino):
            entry.attr_timeout = CREATED_SECONDS
        return fh, entry

    def link(self, inode: int, new_parent: int, new_name: bytes, ctx: Any) -> EntryAttributes:
        self._peeked = self._absent = None
        source = b"/proc/self/fd/%d" % self._source.path_fd(inode)
        directory = self._source.path_fd(new_parent)
        os.link(source, new_name, dst_dir_fd=directory, follow_symlinks=True)
        return self._entry(new_parent, new_name)

    def unlink(self, parent: int, name: bytes, ctx: Any) -> None:
        directory = self._source.path_fd(parent)
        self._losing(parent, name, lambda: os.unlink(name, dir_fd=directory))

    def rmdir(self, parent: int, name: bytes, ctx: Any) -> None:
        directory = self._source.path_fd(parent)
        self._losing(parent, name, lambda: os.rmdir(name, dir_fd=directory))

    def rename(self, old: int, name: bytes, new: int, new_name: bytes, ctx: Any) -> None:
        source, target = self._source.path_fd(old), self._source.path_fd(new)
        self._losing(
            new,
            new_name,
            lambda: os.rename(name, new_name, src_dir_fd=source, dst_dir_fd=target),
        )

    def _losing(self, parent: int, name: bytes, change: Callable[[], None]) -> None:
        """Do what may take the last name of what `name` holds, but keep hold of that if somebody
        uses it."""
        node, lasting = self._in_use_by(parent, name)
        if node:
            self._source.keep_nameless(node, lasting)
        try:
            change()
        except OSError:
            self._source.give_up_nameless(node)
            raise

    def _in_use_by(self, parent: int, name: bytes) -> tuple[int, bool]:
        """The inode that has this name only and may be in use, zero when there is none such; and
        whether it can be kept beyond this process (opening a device would do something)."""
        if self._peeked is None or self._peeked[:2] != (parent, name):
            self.peek(parent, name)
        assert self._peeked is not None
        _, _, st, node = self._peeked
        self._peeked = self._absent = None
        if st is None or (st.st_nlink > 1 and not stat.S_ISDIR(st.st_mode)):
            return 0, False
        if stat.S_ISREG(st.st_mode):
            if self._record.open_handles(node):
                return node, True
            self._source.hold(node, parent, name)  # who knows it may ask for it until forgotten
            return 0, False
        return node, stat.S_ISDIR(st.st_mode)

    def check(self) -> None:
        """Run the invariants; AssertionError when one does not hold."""
        self._source.check()
