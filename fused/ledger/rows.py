"""Which rows of a table in the ledger are free."""

import errno
import mmap
import os
from heapq import heappop, heappush

CHUNK = 4096  # rows that are reserved and given back together


class Rows:
    """The numbers of a table's free rows: lowest chunk first; an empty chunk goes back.

    Invariants (`check`): a row is either given out or in its chunk's free list, and `used` counts
    the former; exactly the chunks with something to give are in `_partial`; a chunk whose list is
    None holds no memory.
    """

    def __init__(
        self, fd: int, map_: mmap.mmap, start: int, row_bytes: int, capacity: int
    ) -> None:
        self._fd, self._map = fd, map_
        self._start, self._chunk_bytes = start, row_bytes * CHUNK
        self._capacity = capacity
        self.used: list[int] = []
        self._free: list[list[int] | None] = []
        self._partial: list[int] = []

    def take(self) -> int:
        """A free row, zeroed or left by an earlier user.

        OSError: ENOSPC when the tmpfs is full, ENFILE when the table's capacity is used up."""
        if not self._partial:
            if (len(self.used) + 1) * CHUNK > self._capacity:
                raise OSError(errno.ENFILE, "the ledger's table is full")
            heappush(self._partial, len(self.used))
            self.used.append(0)
            self._free.append(None)
        chunk = self._partial[0]
        free = self._free[chunk]
        if free is None:
            offset = self._start + chunk * self._chunk_bytes
            os.posix_fallocate(self._fd, offset, self._chunk_bytes)
            free = list(range((chunk + 1) * CHUNK - 1, chunk * CHUNK - 1, -1))
            self._free[chunk] = free
        row = free.pop()
        self.used[chunk] += 1
        if not free:
            heappop(self._partial)
        return row

    def give_back(self, row: int) -> None:
        """The row is free again; its commit word is zero already."""
        chunk = row // CHUNK
        free = self._free[chunk]
        assert free is not None
        if not free:
            heappush(self._partial, chunk)
        free.append(row)
        self.used[chunk] -= 1
        if self.used[chunk] == 0 and chunk:
            self._free[chunk] = None
            self._map.madvise(
                mmap.MADV_REMOVE, self._start + chunk * self._chunk_bytes, self._chunk_bytes
            )

    def adopt(self, commits: list[int]) -> None:
        """Take over a table whose rows have these commit words (zero: free)."""
        for start in range(0, len(commits), CHUNK):
            part = commits[start : start + CHUNK]
            part += [0] * (CHUNK - len(part))
            free: list[int] = []
            if 0 in part:
                free = [start + i for i in range(CHUNK - 1, -1, -1) if not part[i]]
                heappush(self._partial, start // CHUNK)
            self.used.append(CHUNK - len(free))
            self._free.append(None if len(free) == CHUNK else free)

    def check(self) -> None:
        """Run the invariants."""
        for chunk, (used, free) in enumerate(zip(self.used, self._free, strict=True)):
            assert used + (CHUNK if free is None else len(free)) == CHUNK, chunk
            assert (chunk in self._partial) == (free is None or bool(free)), chunk
        assert len(set(self._partial)) == len(self._partial)
