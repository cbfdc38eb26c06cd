"""The memory that a worker's threads read requests into, kept when the worker dies.

It is a memfd, beside the ledger's file because the kernel fails a request with EIO when its reader
is killed while a page of the buffer has to be brought in: so these pages are always there.
"""

import ctypes
import mmap
import os

from fused.ledger.layout import SLOTS

HEAD = 16  # bytes before a buffer that belong to malloc(3)
BYTES = 132 << 10  # what libfuse 2.9 reads at once
STRIDE = 136 << 10
_IS_MMAPPED, _FLAGS = 2, 7  # the lowest bits of the size that glibc notes before a buffer
_MAP_FIXED = 0x10
_mmap = ctypes.CDLL(None, use_errno=True).mmap
_mmap.restype = ctypes.c_void_p
_mmap.argtypes = (
    *(ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int),
    ctypes.c_long,
)


def mapped_size(address: int) -> int:
    """The bytes of the mapping that is the buffer at `address`, which malloc(3) gave; zero for one
    in the heap, behind which other objects lie, be it at the beginning of a page or not."""
    size = ctypes.c_size_t.from_address(address - ctypes.sizeof(ctypes.c_size_t)).value
    return size & ~_FLAGS if size & _IS_MMAPPED else 0


class RequestBuffers:
    """One buffer for each slot of the ledger.  `fd` goes to the fd store."""

    def __init__(self, fd: int | None = None) -> None:
        self.fd = os.memfd_create("fused-requests", os.MFD_CLOEXEC) if fd is None else fd
        os.ftruncate(self.fd, SLOTS * STRIDE)
        self._view = memoryview(mmap.mmap(self.fd, SLOTS * STRIDE))

    def __getitem__(self, number: int) -> memoryview:
        start = number * STRIDE + HEAD
        return self._view[start : start + BYTES]

    def put_at(self, number: int, address: int) -> memoryview:
        """Put a slot's buffer, emptied, into the place of one that malloc gave at `address`.

        Nobody may use that memory meanwhile.  Returns what requests are read into: memory that is
        no mapping of its own cannot be replaced, and a FORGET in it dies with its reader."""
        base, start = address - HEAD, number * STRIDE
        if mapped_size(address) == STRIDE:
            self._view[start : start + HEAD] = ctypes.string_at(base, HEAD)
            access, fixed = mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED | _MAP_FIXED
            if _mmap(base, STRIDE, access, fixed, self.fd, start) != base:
                raise OSError(ctypes.get_errno(), "mmap of a request buffer failed")
        ctypes.memset(address, 0, BYTES)
        return memoryview((ctypes.c_ubyte * BYTES).from_address(address)).cast("B")
