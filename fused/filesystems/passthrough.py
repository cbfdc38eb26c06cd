"""passthrough: a directory of another file system, as it is.

Every request becomes the system call that it came from, on the file that the inode is (never on a
path: see `source`).  With `cache: shared` others may change the source at any time; with
`cache: exclusive` only this mount does, so that the kernel may cache names and attributes for as
long as it likes and write data back when it likes.

The kernel has checked permissions (default_permissions) before a request gets here.  New files are
made with the caller's file system user, group and umask, so that the source's own rules on
set-group directories and default ACLs apply.  O_APPEND stays with the kernel, which tells each
write its offset: a write is then the same when it is done twice.
"""

import errno
import logging
import os
import stat
import threading
from collections.abc import Callable, Iterable, Sequence
from math import inf
from time import monotonic
from typing import Any

from llfuse import EntryAttributes, FUSEError

from fused.errors import WorkerFailed
from fused.filesystems import syscalls
from fused.filesystems.attributes import AttributeHandlers
from fused.filesystems.directories import GONE, Directory, DirectoryHandlers
from fused.filesystems.source import Source
from fused.filesystems.survival import Features, KnownInodes, OpenHandle, Record

log = logging.getLogger(__name__)
NAME_MAX = 255
WRITE_BACK = "WRITEBACK_CACHE"
STACKED = {0x794C7630, 0x65735546}  # statfs(2): overlayfs, FUSE
PRIVILEGES = stat.S_ISUID | stat.S_ISGID
SHARED_SECONDS, EXCLUSIVE_SECONDS, ABSENT_SECONDS = 0.5, 86400.0, 1.0
SMALL = 64 << 10  # bytes
CREATED_SECONDS = 0.001  # for the kernel to open what was made, without asking for it first
READ_MAX = 1 << 20  # bytes that a request asks for at most
SLOW, SLOW_SECONDS = 0.002, 1.0  # a write that takes so long, others wait for elsewhere
_NOT_PASSED = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_DIRECT | os.O_APPEND | os.O_NOCTTY


class Passthrough(AttributeHandlers, DirectoryHandlers):
    """See the module.  Options: `source`, an absolute path; `cache`, "shared" or "exclusive"."""

    def __init__(self, source: str, cache: str = "shared") -> None:
        super().__init__()
        self._path = source
        self._exclusive = cache == "exclusive"
        self._timeout = EXCLUSIVE_SECONDS if self._exclusive else SHARED_SECONDS
        self._files: dict[int, int] = {}  # fh -> descriptor
        self._umask = -1
        self._local = threading.local()
        self._in_memory = False  # reading and writing never wait
        self._tells_waiting = True  # whether the source can tell that reading would wait
        self._slow_until = -inf
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

    # -- files -----------------------------------------------------------------------------------

    def _backing_flags(self, flags: int) -> int:
        flags &= ~_NOT_PASSED
        if self._exclusive and flags & os.O_ACCMODE == os.O_WRONLY:
            flags = flags & ~os.O_ACCMODE | os.O_RDWR  # the kernel reads to fill pages
        return flags

    def _open_file(self, inode: int, flags: int) -> int:
        return self._source.open(inode, self._backing_flags(flags))

    def open(self, inode: int, flags: int, ctx: Any) -> int:
        fd = self._open_file(inode, flags)
        if flags & os.O_TRUNC and self._record.kills_privileges():
            self.drop_privileges(b"/proc/self/fd/%d" % fd)
        st, written = os.fstat(fd), self._record.written(inode)
        fh = self._opened(inode, fd, flags, st, ctx)
        if not (self._exclusive or self._is_told(inode, st)) or (
            self._record.written(inode) and not written
        ):
            self._record.invalidate(inode)
        return fh

    def _opened(self, inode: int, fd: int, flags: int, st: os.stat_result, ctx: Any) -> int:
        # A write by its user takes suid and sgid from a file, which is for us to do; a small file
        # that is read is sooner asked for, and cached, than made known.
        small = flags & os.O_ACCMODE == os.O_RDONLY and st.st_size <= SMALL
        asked = small or bool(st.st_mode & PRIVILEGES)
        fh = self._record.open_handle(inode, fd, flags, asked, ctx.uid)
        self._files[fh] = fd
        self._source.lend(inode, fd)
        return fh

    def read(self, fh: int, offset: int, size: int) -> memoryview | bytes:
        fd = self._files[fh]
        if self._in_memory:
            return os.pread(fd, size, offset)
        buffer = self._buffer(size)
        done = self._read_at_once(fd, buffer, offset)
        if done < size and (not done or offset + done < os.fstat(fd).st_size):
            with self._record.waiting:
                done += os.preadv(fd, [buffer[done:]], offset + done)
        return buffer[:done]

    def _read_at_once(self, fd: int, buffer: memoryview, offset: int) -> int:
        """Read what is in memory already."""
        if self._tells_waiting:
            try:
                return os.preadv(fd, [buffer], offset, os.RWF_NOWAIT)
            except OSError as error:
                if error.errno == errno.EOPNOTSUPP:
                    self._tells_waiting = False
                elif error.errno != errno.EAGAIN:
                    raise
        return 0

    def _buffer(self, size: int) -> memoryview:
        """Memory of the calling thread for a reply, which it sends before it reads again."""
        try:
            buffer = self._local.buffer
        except AttributeError:
            buffer = self._local.buffer = memoryview(bytearray(READ_MAX))
        part: memoryview = buffer[:size]
        return part

    def write(self, fh: int, offset: int, data: bytes) -> int:
        fd = self._files[fh]
        if self._record.kills_privileges():
            self.drop_privileges(b"/proc/self/fd/%d" % fd)
        began = monotonic()
        if began < self._slow_until:
            with self._record.waiting:
                done = os.pwrite(fd, data, offset)
        else:
            done = os.pwrite(fd, data, offset)
        if (now := monotonic()) - began > SLOW:
            self._slow_until = now + SLOW_SECONDS
        return done

    def flush(self, fh: int) -> None:
        if self._source.local:
            raise FUSEError(errno.ENOSYS)  # close(2) has no error to tell: the kernel asks no more
        os.close(os.dup(self._files[fh]))

    def fsync(self, fh: int, datasync: bool) -> None:
        fd = self._files[fh]
        with self._record.waiting:
            (os.fdatasync if datasync else os.fsync)(fd)
        if self._record.written(node := self._source.node_of(fd)):
            self._record.invalidate(node)  # a write through a mapping shows up now at the latest

    def release(self, fh: int) -> None:
        self._record.close_handle(fh)
        self._close(self._files.pop(fh))

    def _close(self, fd: int) -> None:
        if fd != GONE:
            self._source.take_back(fd)
            os.close(fd)

    def check(self) -> None:
        """Run the invariants; AssertionError when one does not hold."""
        self._source.check()
