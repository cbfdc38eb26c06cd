"""The ledger's table of open files and directories, from its writer's side."""

import mmap
import struct
from collections.abc import Iterator
from typing import NamedTuple

from fused.errors import LedgerDamaged
from fused.ledger import layout as at
from fused.ledger.layout import HANDLE_WORDS, HANDLES_AT, handle_check
from fused.ledger.rows import Rows

_BODY = struct.Struct("=QQQ")  # node, flags, check


class Handle(NamedTuple):
    """One open file or directory: `flags` as for open(2)."""

    fh: int
    node: int
    flags: int
    directory: bool


class HandleTable:
    """The open handles.

    A row: fh + 1 (commit), node, flags | directory << 32 | opens << 33, check.

    A type may give one fh for several opens; the row then counts them.  Files and directories have
    number spaces of their own.
    """

    def __init__(self, fd: int, map_: mmap.mmap, words: memoryview) -> None:
        self._words, self._map = words, map_
        self._free = Rows(fd, map_, HANDLES_AT * 8, HANDLE_WORDS * 8, at.HANDLE_CAPACITY)
        self._rows: dict[tuple[int, bool], int] = {}
        self._of_node: dict[int, int] = {}  # node -> open handles

    def __contains__(self, key: tuple[int, bool]) -> bool:
        return key in self._rows

    def __iter__(self) -> Iterator[Handle]:
        for (fh, directory), row in list(self._rows.items()):
            yield Handle(fh, self._words[row + 1], self._words[row + 2] & 0xFFFFFFFF, directory)

    def open_on(self, node: int) -> int:
        """How many handles are open on an inode."""
        return self._of_node.get(node, 0)

    def node(self, fh: int, directory: bool) -> int:
        """The inode that a handle is of; zero when there is no such handle."""
        row = self._rows.get((fh, directory))
        return 0 if row is None else self._words[row + 1]

    def add(self, fh: int, node: int, flags: int, directory: bool) -> None:
        """Note one open(2) that was answered with `fh`."""
        words = self._words
        row = self._rows.get((fh, directory))
        if row is not None:
            self._set(row, fh, words[row + 1], words[row + 2] + (1 << 33))
            node = words[row + 1]
        else:
            number = self._free.take()
            row = HANDLES_AT + number * HANDLE_WORDS
            if number >= words[at.HANDLE_ROWS]:
                words[at.HANDLE_ROWS] = number + 1
            self._set(row, fh, node, flags & 0xFFFFFFFF | directory << 32 | 1 << 33)
            self._rows[fh, directory] = row
        self._of_node[node] = self._of_node.get(node, 0) + 1
        words[at.OPEN_HANDLES] += 1

    def remove(self, fh: int, directory: bool) -> None:
        """Note one release; a handle that is not known is none."""
        row = self._rows.get((fh, directory))
        if row is None:
            return
        words = self._words
        node, flags = words[row + 1], words[row + 2]
        if flags >> 33 > 1:
            self._set(row, fh, node, flags - (1 << 33))
        else:
            words[row] = 0
            del self._rows[fh, directory]
            self._free.give_back((row - HANDLES_AT) // HANDLE_WORDS)
        words[at.OPEN_HANDLES] -= 1
        if self._of_node[node] == 1:
            del self._of_node[node]
        else:
            self._of_node[node] -= 1

    def _set(self, row: int, fh: int, node: int, flags: int) -> None:
        _BODY.pack_into(self._map, row * 8 + 8, node, flags, handle_check(fh + 1, node, flags))
        self._words[row] = fh + 1

    def adopt(self) -> None:
        """Take over a dead worker's rows.  LedgerDamaged when one is not whole."""
        words = self._words
        total = words[at.HANDLE_ROWS]
        if total > at.HANDLE_CAPACITY:
            raise LedgerDamaged("the ledger's handle table has an impossible size")
        end = HANDLES_AT + total * HANDLE_WORDS
        commits = words[HANDLES_AT:end:HANDLE_WORDS].tolist()
        words[at.OPEN_HANDLES] = 0
        for number, commit in enumerate(commits):
            if commit:
                row = HANDLES_AT + number * HANDLE_WORDS
                _, node, flags, check = words[row : row + HANDLE_WORDS].tolist()
                if handle_check(commit, node, flags) != check:
                    raise LedgerDamaged(f"the record of open handle {commit - 1} is damaged")
                self._rows[commit - 1, bool(flags >> 32 & 1)] = row
                self._of_node[node] = self._of_node.get(node, 0) + (flags >> 33)
                words[at.OPEN_HANDLES] += flags >> 33
        self._free.adopt(commits)

    def check(self) -> None:
        """Run the invariants; AssertionError when one does not hold."""
        words = self._words
        opens = 0
        for (fh, directory), row in self._rows.items():
            assert words[row] == fh + 1
            assert bool(words[row + 2] >> 32 & 1) == directory
            assert words[row + 2] >> 33 > 0
            opens += words[row + 2] >> 33
        assert words[at.OPEN_HANDLES] == opens == sum(self._of_node.values())
        self._free.check()
