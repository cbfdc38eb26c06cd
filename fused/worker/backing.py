"""Files that the kernel reads, writes and maps without asking (FUSE_PASSTHROUGH, Linux 6.9).

A file of the source is registered with the connection (FUSE_DEV_IOC_BACKING_OPEN), and the answer
to an open names it by its number.  All open handles of an inode must be of that kind or none
(fs/fuse/iomode.c).  libfuse 2.9 knows nothing of it, so opens are answered here; llfuse's own
answer then finds no request any more.  The numbers live as long as the connection, so successors
go on with them: handles have them in their lowest bits.
"""

import contextlib
import ctypes
import fcntl
import os
import struct
from collections.abc import Iterable

from llfuse import EntryAttributes

from fused.ledger import layout as at
from fused.ledger.writer import Ledger
from fused.worker import connection as wire

MASK, SHIFT = (1 << 31) - 1, 31  # a handle: its own number (32 bits), then its file's
UNNOTED = 4  # files that a dead worker may have registered and not noted
_OPEN, _CLOSE = 0x4010E501, 0x4004E502  # ioctl numbers
_FOPEN_PASSTHROUGH = 1 << 7
_MAP = struct.Struct("=iIQ")  # fuse_backing_map: descriptor, flags, padding
_OPENED = struct.Struct("=QIi")  # fuse_open_out: handle, flags, number of the file
# fuse_entry_out: node, generation, seconds and ns that entry and attributes are valid; fuse_attr
_ENTRY = struct.Struct("=QQQQII" + "QQQQQQ" + "IIIIIIIIII")
_CAP_VERSION, _CAP_FSETID = 0x20080522, 1 << 4
_NS = 10**9


class _Capabilities:
    """capset(2) of the calling thread, with and without CAP_FSETID in effect."""

    def __init__(self) -> None:
        libc = ctypes.PyDLL(None, use_errno=True)
        self._capset = libc.capset
        libc.capget.argtypes = libc.capset.argtypes = (ctypes.c_void_p, ctypes.c_void_p)
        header = (ctypes.c_uint32 * 2)(_CAP_VERSION, 0)
        all_, less = (ctypes.c_uint32 * 6)(), (ctypes.c_uint32 * 6)()
        self._kept = header, all_, less
        self._header, self._all, self._less = map(ctypes.addressof, self._kept)
        if libc.capget(self._header, self._all) != 0:
            raise OSError(ctypes.get_errno(), "capget failed")
        for i, word in enumerate(all_):
            less[i] = word if i else word & ~_CAP_FSETID

    def __enter__(self) -> None:
        self._capset(self._header, self._less)

    def __exit__(self, *_: object) -> None:
        self._capset(self._header, self._all)


class _Open:
    """An inode with open handles: the number of its file, zero without."""

    __slots__ = ("file", "handles", "written")

    def __init__(self, file: int) -> None:
        self.file, self.handles, self.written = file, 0, False


class Backings:
    """The files of one connection that the kernel reads and writes itself.

    Invariants (`check`): an inode is in `_open` while it has open handles, and each of these has
    the number of its file.
    """

    def __init__(self, fd: int, ledger: Ledger) -> None:
        self._fd, self._ledger = fd, ledger
        self.enabled = bool(ledger.features & wire.PASSTHROUGH)
        self._open: dict[int, _Open] = {}
        self._without_fsetid = _Capabilities()
        if self.enabled:
            for handle in ledger.handles:
                if not handle.directory:
                    self._add(handle.node, handle.fh & MASK, handle.flags)

    def _add(self, node: int, file: int, flags: int) -> None:
        entry = self._open.get(node)
        if entry is None:
            entry = self._open[node] = _Open(file)
        entry.handles += 1
        entry.written |= flags & os.O_ACCMODE != os.O_RDONLY

    def drop_lost(self, lost: Iterable[int]) -> None:
        """Give up what a dead worker registered for nothing: for these handles, or unnoted."""
        last = self._ledger.words[at.LAST_BACKING]
        unnoted = range(last, last + UNNOTED + 1)
        used = {entry.file for entry in self._open.values()}
        for file in {fh & MASK for fh in lost}.union(unnoted) - used - {0}:
            self._close(file)

    def open_handle(self, node: int, fd: int, flags: int, asked: bool, uid: int) -> int:
        """A handle for `fd`, which is open on the inode for `uid`, with a number never used
        before; unless everything is to be `asked` for, the kernel reads and writes by itself."""
        number = self._ledger.next_handle()
        if not self.enabled:
            return number
        entry = self._open.get(node)
        file = entry.file if entry else 0 if asked else self._register(fd, uid)
        self._add(node, file, flags)
        return (number & 0xFFFFFFFF) << SHIFT | file

    def close_handle(self, fh: int) -> None:
        """The handle is released."""
        node = self._ledger.handles.node(fh, False)
        entry = self._open.get(node)
        if entry is not None:
            entry.handles -= 1
            if not entry.handles:
                del self._open[node]
                if entry.file:
                    self._close(entry.file)

    def written(self, node: int) -> bool:
        """Whether somebody may change the file's content without our being asked."""
        entry = self._open.get(node)
        return entry is not None and entry.written and entry.file != 0

    def _register(self, fd: int, uid: int) -> int:
        """The number of the file; zero when it cannot be: another file system is below its own.

        The kernel will write with the rights that we have now.  Without CAP_FSETID, that takes
        suid and sgid from a file which got them after it was opened, as a user's write does."""
        with self._without_fsetid if uid else contextlib.nullcontext():
            try:
                file: int = fcntl.ioctl(self._fd, _OPEN, bytearray(_MAP.pack(fd, 0, 0)), True)
            except OSError:
                return 0
        self._ledger.words[at.LAST_BACKING] = file
        return file

    def _close(self, file: int) -> None:
        with contextlib.suppress(OSError):  # it is gone already
            fcntl.ioctl(self._fd, _CLOSE, file.to_bytes(4, "little"))

    def answer_open(self, unique: int, fh: int) -> None:
        """Answer an OPEN whose handle has a file; otherwise llfuse does."""
        if self.enabled and fh & MASK:
            self._answer(unique, _OPENED.pack(fh, _FOPEN_PASSTHROUGH, fh & MASK))

    def answer_create(self, unique: int, fh: int, entry: EntryAttributes) -> None:
        """Answer a CREATE whose handle has a file; otherwise llfuse does."""
        if self.enabled and fh & MASK:
            opened = _OPENED.pack(fh, _FOPEN_PASSTHROUGH, fh & MASK)
            self._answer(unique, _packed(entry) + opened)

    def _answer(self, unique: int, body: bytes) -> None:
        with contextlib.suppress(OSError):  # its client has gone
            os.write(self._fd, wire.OUT_HEADER.pack(16 + len(body), 0, unique) + body)

    def check(self) -> None:
        """Run the invariants; AssertionError when one does not hold."""
        if self.enabled:
            files = [h for h in self._ledger.handles if not h.directory]
            assert {handle.node for handle in files} == self._open.keys()
            assert all(self._open[h.node].file == h.fh & MASK for h in files)


def _packed(entry: EntryAttributes) -> bytes:
    """fuse_entry_out."""
    entry_valid, attr_valid = int(entry.entry_timeout * _NS), int(entry.attr_timeout * _NS)
    (atime, atime_ns), (mtime, mtime_ns), (ctime, ctime_ns) = (
        divmod(ns, _NS) for ns in (entry.st_atime_ns, entry.st_mtime_ns, entry.st_ctime_ns)
    )
    return _ENTRY.pack(
        entry.st_ino, entry.generation, entry_valid // _NS, attr_valid // _NS,
        entry_valid % _NS, attr_valid % _NS,
        entry.st_ino, entry.st_size, entry.st_blocks, atime, mtime, ctime,
        atime_ns, mtime_ns, ctime_ns, entry.st_mode, entry.st_nlink, entry.st_uid, entry.st_gid,
        0, entry.st_blksize, 0,
    )  # fmt: skip
