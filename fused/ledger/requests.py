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
_MAP_FIXED = 0x10
_IS_MMAPPED = 2  # in the size that malloc notes before what it gives
_mmap = ctypes.CDLL(None, use_errno=True).mmap
_mmap.restype = ctypes.c_void_p
_mmap.argtypes = (
    *(ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int),
    ctypes.c_long,
)


def has_pages_of_its_own(address: int) -> bool:
    """Whether malloc(3) has mmapped what it gave, so that nothing else is in its pages.

    Where it begins does not tell: a hole in the heap may begin there, too."""
    size_and_flags: int = ctypes.c_size_t.from_address(address - 8).value
    return bool(size_and_flags & _IS_MMAPPED)


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

        Nobody may use that memory meanwhile.  Returns what requests are read into: memory that
        shares its pages cannot be replaced, and a FORGET in it dies with its reader."""
        base, start = address - HEAD, number * STRIDE
        if has_pages_of_its_own(address) and base % mmap.PAGESIZE == 0:
            self._view[start : start + HEAD] = ctypes.string_at(base, HEAD)
            access, fixed = mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED | _MAP_FIXED
            if _mmap(base, STRIDE, access, fixed, self.fd, start) != base:
                raise OSError(ctypes.get_errno(), "mmap of a request buffer failed")
        ctypes.memset(address, 0, BYTES)
        return memoryview((ctypes.c_ubyte * BYTES).from_address(address)).cast("B")
