"""The ledger's inode table, from its writer's side."""

import mmap
import struct
from collections.abc import Iterator

from fused.errors import LedgerDamaged
from fused.ledger import layout as at
from fused.ledger.layout import CONTINUED, INODE_WORDS, INODES_AT, inode_crc, pack_count
from fused.ledger.rows import Rows

SHRINK, SMALL = 8, 64_000  # the index is made anew when it has shrunk to an eighth, if not small
ONCE = pack_count(1)
BLOB_AT = at.BLOB * 8
_HEAD = struct.Struct("=QQQQQQ")  # NODE to CRC
_BODY = struct.Struct("=QQQQQ")  # COUNT, LINKS, PARENT, META, CRC


class InodeTable:
    """The inodes that the kernel knows, each with its lookup count, key, parent and name.

    A row of 128 bytes: node id (the commit word), count, links, parent's node id, lengths and
    continuation, CRC of what does not change, then key and name.  A key and name of more than 80
    bytes go on in further rows of the same table.  A change of name writes a new row.

    Invariants (`check`): each committed row's node is in `rows` and the other way round; no count
    is zero; the header's totals are the sums.
    """

    def __init__(self, fd: int, map_: mmap.mmap, words: memoryview) -> None:
        self._words, self._bytes = words, memoryview(map_)
        self._free = Rows(fd, map_, INODES_AT * 8, INODE_WORDS * 8, at.INODE_CAPACITY)
        self.rows: dict[int, int] = {}  # node id -> index of its row's first word
        self.doubtful: set[int] = set()  # a dead worker may have removed their names
        self._shrink_below, self._grown_above = 0, SMALL

    def __contains__(self, node: int) -> bool:
        return node in self.rows

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[int]:
        return iter(self.rows)

    def count(self, node: int) -> int:
        """The lookup count of an inode; zero for one that is not known."""
        row = self.rows.get(node)
        return 0 if row is None else self._words[row + at.COUNT] >> 24

    def add(self, node: int, key: bytes, parent: int, name: bytes, links: int) -> None:
        """Make a row, with a count of one, for an inode that has none."""
        self.rows[node] = self._write(node, ONCE, key, parent, name, links)
        if len(self.rows) > self._grown_above:
            self._expect_shrinking()
        self._words[at.KNOWN] += 1
        self._words[at.LOOKUPS] += 1

    def _expect_shrinking(self) -> None:
        if len(self.rows) > SMALL:
            self._shrink_below = len(self.rows) // SHRINK
        self._grown_above = max(SMALL, SHRINK * len(self.rows))

    def increment(self, node: int) -> int:
        """Count one more lookup of a known inode; returns the new count."""
        words = self._words
        index = self.rows[node] + at.COUNT
        count = (words[index] >> 24) + 1
        words[index] = count << 24 | (count ^ count >> 24 ^ 0xA5A5A5) & 0xFFFFFF
        words[at.LOOKUPS] += 1
        return count

    def decrement(self, node: int, by: int) -> int:
        """Take `by` lookups back; at zero the row goes.

        Returns what is left.  A count never goes below zero, and an inode that is not known stays
        so: the kernel may forget what a dead worker's audit has dropped already."""
        row = self.rows.get(node)
        if row is None:
            return 0
        words = self._words
        count = words[row + at.COUNT] >> 24
        if by <= 0:
            return count
        if count > by:
            words[row + at.COUNT] = pack_count(count - by)
            words[at.LOOKUPS] -= by
            return count - by
        words[at.LOOKUPS] -= count
        words[at.KNOWN] -= 1
        del self.rows[node]
        self._erase(row)
        if len(self.rows) < self._shrink_below:  # a dict never shrinks by itself
            self.rows = dict(self.rows)
            self._shrink_below, self._grown_above = 0, SMALL
        return 0

    def rename(self, node: int, parent: int, name: bytes) -> None:
        """Note the new place of an inode, if it is known."""
        old = self.rows.get(node)
        if old is not None:
            self._replace(old, self._content(old)[0], parent, name, self._words[old + at.LINKS])

    def reuse(self, node: int, key: bytes, parent: int, name: bytes) -> None:
        """The number of a known inode now stands for another file: a new key and generation."""
        old = self.rows[node]
        self._replace(old, key, parent, name, (self.generation(node) + 1) << at.GENERATION_SHIFT)

    def _replace(self, old: int, key: bytes, parent: int, name: bytes, links: int) -> None:
        node, count = self._words[old], self._words[old + at.COUNT]
        self.rows[node] = self._write(node, count, key, parent, name, links)
        self._erase(old)

    def generation(self, node: int) -> int:
        """How often the number of a known inode was reused.  KeyError."""
        return self._words[self.rows[node] + at.LINKS] >> at.GENERATION_SHIFT

    def note_links(self, node: int, links: int) -> None:
        """Note the link count last seen; zero marks the inode as unlinked."""
        row = self.rows.get(node)
        if row is not None:
            above = self.generation(node) << at.GENERATION_SHIFT
            self._words[row + at.LINKS] = above | (links or at.UNLINKED)

    def drop_link(self, node: int, *, directory: bool) -> None:
        """Note that a name of the inode is gone; the last one, for a directory."""
        row = self.rows.get(node)
        if row is not None:
            word = self._words[row + at.LINKS]
            links = 0 if directory else max(1, word & 0xFFFFFFFF) - 1
            above = word >> at.GENERATION_SHIFT << at.GENERATION_SHIFT
            self._words[row + at.LINKS] = above | (links or at.UNLINKED)

    def key(self, node: int) -> bytes:
        """The key given to `add`.  KeyError for an unknown inode, LedgerDamaged for a bad row."""
        return self._content(self.rows[node])[0]

    def has_key(self, node: int, key: bytes) -> bool:
        """Whether that is the key given to `add`.  KeyError, LedgerDamaged."""
        row = self.rows[node]
        if self._words[row + at.META] & 0xFFFF == len(key) <= at.BLOB_BYTES:
            start = row * 8 + BLOB_AT
            if self._bytes[start : start + len(key)] == key:
                return True
        return self.key(node) == key

    def unlinked(self, node: int) -> bool:
        """Whether the last name that was known is gone, or may be.  KeyError."""
        gone = self._words[self.rows[node] + at.LINKS] & at.UNLINKED
        return bool(gone) or node in self.doubtful

    def place(self, node: int) -> tuple[int, bytes]:
        """Parent and name last noted.  KeyError, LedgerDamaged."""
        _, parent, name = self._content(self.rows[node])
        return parent, name

    def _content(self, row: int) -> tuple[bytes, int, bytes]:
        words = self._words
        node, _, _, parent, meta, crc = _HEAD.unpack_from(self._bytes, row * 8)
        key_length, length, following = meta & 0xFFFF, meta >> 16 & 0xFFFF, meta >> 32
        start = row * 8 + BLOB_AT
        blob = bytes(self._bytes[start : start + min(length, at.BLOB_BYTES)])
        while following and len(blob) < length and following <= at.INODE_CAPACITY:
            row_more = INODES_AT + (following - 1) * INODE_WORDS
            start = (row_more + at.CONTINUED_BLOB) * 8
            blob += self._bytes[start : start + min(length - len(blob), at.CONTINUED_BYTES)]
            following = words[row_more + at.CONTINUED_NEXT]
        if inode_crc(node, parent, meta, blob) != crc:
            raise LedgerDamaged(f"the ledger's record of inode {node} is damaged")
        return blob[:key_length], parent, blob[key_length:]

    def _write(
        self, node: int, count: int, key: bytes, parent: int, name: bytes, links: int
    ) -> int:
        blob = key + name
        following = self._continue(blob[at.BLOB_BYTES :]) if len(blob) > at.BLOB_BYTES else 0
        row = self._take()
        meta = len(key) | len(blob) << 16 | following << 32
        start = row * 8 + BLOB_AT
        if following:
            self._bytes[start : start + at.BLOB_BYTES] = blob[: at.BLOB_BYTES]
        else:
            self._bytes[start : start + len(blob)] = blob
        crc = inode_crc(node, parent, meta, blob)
        _BODY.pack_into(self._bytes, (row + 1) * 8, count, links, parent, meta, crc)
        self._words[row] = node
        return row

    def _continue(self, rest: bytes) -> int:
        following = 0
        for start in reversed(range(0, len(rest), at.CONTINUED_BYTES)):
            part = rest[start : start + at.CONTINUED_BYTES]
            row = self._take()
            begin = (row + at.CONTINUED_BLOB) * 8
            self._bytes[begin : begin + len(part)] = part
            self._words[row + at.CONTINUED_NEXT] = following
            self._words[row] = CONTINUED
            following = (row - INODES_AT) // INODE_WORDS + 1
        return following

    def _take(self) -> int:
        number = self._free.take()
        if number >= self._words[at.INODE_ROWS]:
            self._words[at.INODE_ROWS] = number + 1
        return INODES_AT + number * INODE_WORDS

    def _erase(self, row: int) -> None:
        following = self._words[row + at.META] >> 32
        self._words[row] = 0
        self._free.give_back((row - INODES_AT) // INODE_WORDS)
        while following:
            row = INODES_AT + (following - 1) * INODE_WORDS
            following = self._words[row + at.CONTINUED_NEXT]
            self._words[row] = 0
            self._free.give_back((row - INODES_AT) // INODE_WORDS)

    def adopt(self) -> None:
        """Take over the rows of a dead worker and mend what it left half done.

        LedgerDamaged when a count is not whole."""
        words = self._words
        total = words[at.INODE_ROWS]
        if total > at.INODE_CAPACITY:
            raise LedgerDamaged("the ledger's inode table has an impossible size")
        end = INODES_AT + total * INODE_WORDS
        nodes = words[INODES_AT:end:INODE_WORDS].tolist()
        counts = words[INODES_AT + at.COUNT : end : INODE_WORDS].tolist()
        self._drop_unreferenced(nodes)
        known = range(INODES_AT, end, INODE_WORDS)
        for node, row, count in zip(nodes, known, counts, strict=True):
            if node and node != CONTINUED:
                if pack_count(count >> 24) != count or count >> 24 == 0:
                    raise LedgerDamaged(f"the lookup count of inode {node} is damaged")
                if node in self.rows:  # killed between the two rows of a rename
                    words[row] = nodes[(row - INODES_AT) // INODE_WORDS] = 0
                else:
                    self.rows[node] = row
        self._free.adopt(nodes)
        self._expect_shrinking()
        words[at.KNOWN] = len(self.rows)
        words[at.LOOKUPS] = sum(words[row + at.COUNT] >> 24 for row in self.rows.values())

    def _drop_unreferenced(self, nodes: list[int]) -> None:
        """Free rows that continue nothing: their row was never committed, or is gone."""
        if CONTINUED not in nodes:
            return
        referenced = set()
        for number, node in enumerate(nodes):
            row = INODES_AT + number * INODE_WORDS
            if node and node != CONTINUED:
                following = self._words[row + at.META] >> 32
                while following and following <= len(nodes) and following not in referenced:
                    referenced.add(following)
                    following = self._words[
                        INODES_AT + (following - 1) * INODE_WORDS + at.CONTINUED_NEXT
                    ]
        for number, node in enumerate(nodes):
            if node == CONTINUED and number + 1 not in referenced:
                nodes[number] = self._words[INODES_AT + number * INODE_WORDS] = 0

    def check(self) -> None:
        """Run the invariants; AssertionError when one does not hold."""
        words = self._words
        total = 0
        for node, row in self.rows.items():
            assert words[row] == node, f"row of inode {node} holds {words[row]}"
            count = words[row + at.COUNT] >> 24
            assert count > 0, f"inode {node} is known with a count of zero"
            assert pack_count(count) == words[row + at.COUNT]
            self._content(row)
            total += count
        assert words[at.KNOWN] == len(self.rows)
        assert words[at.LOOKUPS] == total
        self._free.check()
