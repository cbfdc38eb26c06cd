"""The ledger from the side of everybody else: safe while its worker writes, hangs or is dead."""

import os
import time
from array import array
from collections.abc import Iterator
from typing import NamedTuple

from fused.errors import LedgerDamaged
from fused.ledger import layout as at
from fused.ledger.layout import CONTINUED, INODE_WORDS, INODES_AT, OPERATIONS, State, inode_crc

FEATURE_NAMES = {
    0: "ASYNC_READ", 3: "ATOMIC_O_TRUNC", 5: "BIG_WRITES", 6: "DONT_MASK", 12: "AUTO_INVAL_DATA",
    15: "ASYNC_DIO", 16: "WRITEBACK_CACHE", 18: "PARALLEL_DIROPS", 20: "POSIX_ACL",
    22: "MAX_PAGES", 23: "CACHE_SYMLINKS", 28: "HANDLE_KILLPRIV_V2", 37: "PASSTHROUGH",
    39: "HAS_RESEND",
}  # fmt: skip


class Header(NamedTuple):
    """The header.  Times are CLOCK_MONOTONIC in nanoseconds, zero for never; `requests` and
    `errors` are totals over all operations and workers of the mount."""

    state: str
    pid: int
    restarts: int
    started_ns: int
    serving_ns: int
    minor: int
    features: tuple[str, ...]
    known: int
    lookups: int
    open_handles: int
    requests: int
    errors: int
    last_error: str


class Inode(NamedTuple):
    """An inode that the kernel knows; `links` and `path` are as last seen."""

    inode: int
    lookup_count: int
    open_handles: int
    links: int
    path: str
    unlinked: bool


class Operation(NamedTuple):
    """The counters of one operation.  histogram[i] requests took 2^(i-1) to 2^i - 1 ns."""

    name: str
    requests: int
    errors: int
    max_ns: int
    histogram: tuple[int, ...]

    def percentile(self, fraction: float) -> int:
        """An upper bound in ns, within a factor of two, for that fraction of the requests."""
        wanted, seen = fraction * self.requests, 0
        for i, number in enumerate(self.histogram):
            seen += number
            if number and seen >= wanted:
                return min(1 << i, self.max_ns)
        return 0


class Request(NamedTuple):
    """A request that a handler is working on, or was when its worker died."""

    operation: str
    inode: int
    age_ns: int
    attempts: int


class Reader:
    """The ledger at `path`.  FileNotFoundError when there is none; LedgerDamaged for a file of
    another size or format.  A context manager."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        if os.fstat(self._fd).st_size != at.TOTAL_WORDS * 8 or self._read(0, 1)[0] != at.FORMAT:
            os.close(self._fd)
            raise LedgerDamaged(f"{path} is not a ledger of this version of fused")

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    def _read(self, start: int, words: int) -> "array[int]":
        result = array("Q")
        result.frombytes(os.pread(self._fd, words * 8, start * 8))
        if len(result) != words:
            raise LedgerDamaged("the ledger is truncated")
        return result

    def header(self) -> Header:
        """What the header says now."""
        words = self._read(0, at.HEADER_WORDS)
        operations = self.operations()
        state, features = words[at.STATE], words[at.FEATURES]
        length = min(words[at.ERROR_LENGTH], at.ERROR_BYTES)
        error = words.tobytes()[at.ERROR_TEXT * 8 :][:length].decode("utf-8", "replace")
        return Header(
            State.NAMES[state] if state < len(State.NAMES) else "failed",
            words[at.PID],
            words[at.RESTARTS],
            words[at.STARTED_NS],
            words[at.SERVING_NS],
            words[at.MINOR],
            tuple(name for bit, name in FEATURE_NAMES.items() if features >> bit & 1),
            words[at.KNOWN] + 1,  # the root, which has no row
            words[at.LOOKUPS] + 1,
            words[at.OPEN_HANDLES],
            sum(operation.requests for operation in operations),
            sum(operation.errors for operation in operations),
            error,
        )

    def operations(self) -> list[Operation]:
        """The counters of all operations that were asked at least once."""
        words = self._read(at.COUNTERS_AT, len(OPERATIONS) * at.COUNTER_WORDS)
        result = []
        for index, name in enumerate(OPERATIONS):
            part = words[index * at.COUNTER_WORDS : (index + 1) * at.COUNTER_WORDS]
            histogram = tuple(part[at.HISTOGRAM :])
            if any(histogram):
                count = sum(histogram)
                result.append(Operation(name, count, part[at.ERRORS], part[at.LONGEST], histogram))
        return result

    def in_progress(self) -> list[Request]:
        """The requests that handlers work on now, the oldest first."""
        words = self._read(at.SLOTS_AT, at.SLOTS * at.SLOT_WORDS)
        now = time.monotonic_ns()
        found = []
        for start in range(0, len(words), at.SLOT_WORDS):
            since, operation = words[start + at.SINCE_NS], words[start + at.OPERATION]
            if since and operation & 0xFF < len(OPERATIONS):
                name, subject = OPERATIONS[operation & 0xFF], words[start + at.SUBJECT]
                found.append(Request(name, subject, max(0, now - since), operation >> 8))
        return sorted(found, key=lambda request: -request.age_ns)

    def inodes(self) -> Iterator[Inode]:
        """Every inode that the kernel knows, the root first.  Torn or damaged rows are skipped."""
        rows = self._rows()
        handles: dict[int, int] = {}
        for node, flags in self._handles():
            handles[node] = handles.get(node, 0) + flags
        yield Inode(1, 1, handles.get(1, 0), 2, "/", False)
        for node, (count, links, _, _) in sorted(rows.items()):
            path, unlinked = self._path(node, rows), bool(links & at.UNLINKED)
            yield Inode(node, count, handles.get(node, 0), links & 0xFFFFFFFF, path, unlinked)

    def _handles(self) -> Iterator[tuple[int, int]]:
        total = min(self._read(at.HANDLE_ROWS, 1)[0], at.HANDLE_CAPACITY)
        words = self._read(at.HANDLES_AT, total * at.HANDLE_WORDS)
        for start in range(0, len(words), at.HANDLE_WORDS):
            commit, node, flags, check = words[start : start + at.HANDLE_WORDS]
            if commit and at.handle_check(commit, node, flags) == check:
                yield node, flags >> 33

    def _rows(self) -> dict[int, tuple[int, int, int, bytes]]:
        """Node id -> count, links word, parent's node id, name."""
        total = min(self._read(at.INODE_ROWS, 1)[0], at.INODE_CAPACITY)
        words = self._read(INODES_AT, total * INODE_WORDS)
        raw = memoryview(words).cast("B")
        rows = {}
        for start in range(0, len(words), INODE_WORDS):
            node = words[start]
            if not node or node == CONTINUED or not at.whole_count(words[start + at.COUNT]):
                continue
            parent, meta = words[start + at.PARENT], words[start + at.META]
            key_length, length, following = meta & 0xFFFF, meta >> 16 & 0xFFFF, meta >> 32
            begin = (start + at.BLOB) * 8
            blob = bytes(raw[begin : begin + min(length, at.BLOB_BYTES)])
            while following and following <= total and len(blob) < length:
                more = (following - 1) * INODE_WORDS
                begin = (more + at.CONTINUED_BLOB) * 8
                blob += raw[begin : begin + min(length - len(blob), at.CONTINUED_BYTES)]
                following = words[more + at.CONTINUED_NEXT]
            if inode_crc(node, parent, meta, blob) == words[start + at.CRC]:
                count, links = words[start + at.COUNT] >> 24, words[start + at.LINKS]
                rows[node] = (count, links, parent, blob[key_length:])
        return rows

    @staticmethod
    def _path(node: int, rows: dict[int, tuple[int, int, int, bytes]]) -> str:
        parts: list[bytes] = []
        seen = set()
        while node in rows and node not in seen:
            seen.add(node)
            _, _, parent, name = rows[node]
            parts.append(name)
            node = parent
        path = b"/" + b"/".join(reversed(parts))
        if node != 1:
            path = b"..." + path
        return path.decode("utf-8", "surrogateescape")
