"""Open files of a source: the part of passthrough that opens, reads and writes.

Where the kernel can, it reads, writes and maps a file itself once it is open (`open_handle`);
what is here then only opens, syncs and closes.
"""

import errno
import os
import stat
import threading
from math import inf
from time import monotonic
from typing import Any

from llfuse import FUSEError

from fused.filesystems.attributes import AttributeHandlers
from fused.filesystems.directories import GONE

PRIVILEGES = stat.S_ISUID | stat.S_ISGID
SMALL = 64 << 10  # bytes
READ_MAX = 1 << 20  # bytes that a request asks for at most
SLOW, SLOW_SECONDS = 0.002, 1.0  # a write that takes so long, others wait for elsewhere
_NOT_PASSED = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_DIRECT | os.O_APPEND | os.O_NOCTTY


class FileHandlers(AttributeHandlers):
    """Handlers of requests about open files."""

    def __init__(self) -> None:
        super().__init__()
        self._files: dict[int, int] = {}  # fh -> descriptor
        self._local = threading.local()
        self._in_memory = False  # reading and writing never wait
        self._tells_waiting = True  # whether the source can tell that reading would wait
        self._slow_until = -inf

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
        # A write by its user takes suid and sgid from a file, which is for us to do.
        asked = self._is_better_asked(inode, flags, st) or bool(st.st_mode & PRIVILEGES)
        fh = self._record.open_handle(inode, fd, flags, asked, ctx.uid)
        if self._record.written(inode):
            self._note_written(inode)
        self._files[fh] = fd
        self._source.lend(inode, fd)
        return fh

    def _is_better_asked(self, inode: int, flags: int, st: os.stat_result) -> bool:
        """Whether this is a small file to be read: sooner asked for, and cached, than registered.
        What may be mapped for writing is not, as it changes behind the kernel's cache."""
        reading = flags & os.O_ACCMODE == os.O_RDONLY
        return reading and st.st_size <= SMALL and not self._may_be_mapped(inode)

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
