"""Trees of one's own in memory: what `candidates` compares the kernel's file systems with."""

import mmap
import os
import sqlite3
import stat
import struct
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import native

ROOT = 1
FILE_MODE = stat.S_IFREG | 0o644
PAGE = 4096


class Space:
    """Where content lies in a file of one's own in memory: allocated upwards, never given back."""

    def __init__(self) -> None:
        self.fd = os.memfd_create("content")
        self._end = 0

    def allocate(self, size: int) -> int:
        """The start of so many bytes; pieces of less than a page share pages."""
        unit = PAGE if size >= PAGE else 128
        start = -(-self._end // unit) * unit
        self._end = start + size
        return start


class Sqlite:
    """A tree in SQLite with the tables of llfuse's tmpfs.py, and extents of a content file."""

    survives = "yes: transactions, SQLite's WAL"
    SCHEMA = """
        CREATE TABLE inodes (id INTEGER PRIMARY KEY, uid INT NOT NULL, gid INT NOT NULL,
            mode INT NOT NULL, mtime_ns INT NOT NULL, atime_ns INT NOT NULL,
            ctime_ns INT NOT NULL, target BLOB(256), size INT NOT NULL DEFAULT 0,
            rdev INT NOT NULL DEFAULT 0);
        CREATE TABLE names (rowid INTEGER PRIMARY KEY AUTOINCREMENT, name BLOB(256) NOT NULL,
            inode INT NOT NULL, parent INT NOT NULL, UNIQUE (name, parent));
        CREATE TABLE extents (inode INT, offset INT, start INT, length INT,
            PRIMARY KEY (inode, offset)) WITHOUT ROWID;
        """

    def __init__(self) -> None:
        with ExitStack() as stack:
            place = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/var/tmp")))
            stack.enter_context(native.tmpfs(place / "tmpfs", "size=8g"))
            self._path = place / "tmpfs/tree"
            self._connect()
            self._stack = stack.pop_all()
        self._tree.executescript(self.SCHEMA)
        self._space = Space()
        self._open: list[list[tuple[int, int, int]]] = []  # extents: offset, start, length

    def _connect(self) -> None:
        self._tree = sqlite3.connect(self._path, isolation_level=None)
        self._do = self._tree.execute
        for pragma in ("locking_mode = EXCLUSIVE", "journal_mode = WAL", "synchronous = OFF"):
            self._do(f"PRAGMA {pragma}")

    def make(self, name: bytes, content: bytes) -> None:
        now = time.time_ns()
        self._do("BEGIN")
        node = self._do(
            "INSERT INTO inodes (uid, gid, mode, mtime_ns, atime_ns, ctime_ns)"
            " VALUES (0, 0, ?, ?, ?, ?)",
            (FILE_MODE, now, now, now),
        ).lastrowid
        self._do("INSERT INTO names (name, inode, parent) VALUES (?, ?, ?)", (name, node, ROOT))
        self._do("UPDATE inodes SET mtime_ns = ?, ctime_ns = ? WHERE id = ?", (now, now, ROOT))
        self._do("COMMIT")
        if content:  # a request of its own
            start = self._space.allocate(len(content))
            os.pwrite(self._space.fd, content, start)
            self._do("BEGIN")
            self._do("INSERT INTO extents VALUES (?, 0, ?, ?)", (node, start, len(content)))
            self._do(
                "UPDATE inodes SET size = ?, mtime_ns = ? WHERE id = ?", (len(content), now, node)
            )
            self._do("COMMIT")

    def look(self, name: bytes) -> Any:
        return self._do(
            "SELECT inodes.* FROM names JOIN inodes ON inodes.id = names.inode"
            " WHERE name = ? AND parent = ?",
            (name, ROOT),
        ).fetchone()

    def open(self, name: bytes) -> int:
        node = self.look(name)[0]
        extents = "SELECT offset, start, length FROM extents WHERE inode = ? ORDER BY offset"
        self._open.append(self._do(extents, (node,)).fetchall())
        return len(self._open) - 1

    def _place(self, handle: int, offset: int) -> int:
        for at, start, length in self._open[handle]:
            if at <= offset < at + length:
                return start + offset - at
        raise ValueError(offset)

    def read(self, handle: int, offset: int, size: int) -> bytes:
        return os.pread(self._space.fd, size, self._place(handle, offset))

    def write(self, handle: int, offset: int, data: bytes) -> None:
        os.pwrite(self._space.fd, data, self._place(handle, offset))

    def rename(self, old: bytes, new: bytes) -> None:
        now = time.time_ns()
        self._do("BEGIN")
        change = "UPDATE names SET name = ?, parent = ? WHERE name = ? AND parent = ?"
        self._do(change, (new, ROOT, old, ROOT))
        self._do("UPDATE inodes SET mtime_ns = ?, ctime_ns = ? WHERE id = ?", (now, now, ROOT))
        self._do("COMMIT")

    def unlink(self, name: bytes) -> None:
        now = time.time_ns()
        self._do("BEGIN")
        node = self.look(name)[0]
        self._do("DELETE FROM names WHERE name = ? AND parent = ?", (name, ROOT))
        self._do("DELETE FROM extents WHERE inode = ?", (node,))
        self._do("DELETE FROM inodes WHERE id = ?", (node,))
        self._do("UPDATE inodes SET mtime_ns = ?, ctime_ns = ? WHERE id = ?", (now, now, ROOT))
        self._do("COMMIT")

    def names(self) -> int:
        return sum(1 for _ in self._entries())

    def _entries(self) -> Iterator[Any]:
        return self._do(
            "SELECT names.rowid, name, inode, mode FROM names JOIN inodes ON inodes.id = inode"
            " WHERE parent = ? ORDER BY names.rowid",
            (ROOT,),
        )

    def succeed(self) -> None:
        self._tree.close()
        self._connect()
        self.look(b"")

    def close(self) -> None:
        self._tree.close()
        os.close(self._space.fd)
        self._stack.close()


class Rows:
    """Rows of 128 bytes in a mapping, the names in them, found through a dict of hashes.

    A word that belongs to the tree is noted with its former value before it is changed, and the
    notes are crossed out when the operation is done: a successor puts back what it finds noted,
    and makes the dict from the rows."""

    survives = "yes: notes of what was there before"
    # Words: next and previous in the directory, size, where content starts, mtime, atime, ctime,
    # mode and uid, gid and links, the parent, the name's length; the name follows.
    ROW = struct.Struct("=QQQQQQQIIIIQH")
    NEXT, PREVIOUS, SIZE, START, MTIME, CTIME = 0, 1, 2, 3, 4, 6
    WORDS, NAME = 16, ROW.size
    MAXIMUM = 1 << 20
    NOTES = 0  # row 0: twice the number of notes, then words and their former values
    TOP = ROOT * WORDS

    def __init__(self) -> None:
        fd = os.memfd_create("rows")
        os.ftruncate(fd, self.WORDS * 8 * self.MAXIMUM)
        self._map = mmap.mmap(fd, 0)
        os.close(fd)
        self._words = memoryview(self._map).cast("Q")
        self._index: dict[int, int] = {}
        self._free: list[int] = []
        self._end = ROOT + 1
        self._space = Space()
        self._words[self.TOP + self.NEXT] = self._words[self.TOP + self.PREVIOUS] = ROOT

    def _change(self, *changes: int) -> None:
        """Change words: pairs of which one and its new value."""
        words, note = self._words, self.NOTES
        for i in range(0, len(changes), 2):
            words[note + 1 + i], words[note + 2 + i] = changes[i], words[changes[i]]
        words[note] = len(changes)
        for i in range(0, len(changes), 2):
            words[changes[i]] = changes[i + 1]
        words[note] = 0

    def make(self, name: bytes, content: bytes) -> None:
        row = self._free.pop() if self._free else self._end
        self._end = max(self._end, row + 1)
        now, top = time.time_ns(), self.TOP
        last = self._words[top + self.PREVIOUS]
        at = row * self.WORDS * 8
        fields = ROOT, last, 0, 0, now, now, now, FILE_MODE, 0, 0, 1, ROOT, len(name)
        self.ROW.pack_into(self._map, at, *fields)
        self._map[at + self.NAME : at + self.NAME + len(name)] = name
        following = last * self.WORDS + self.NEXT
        self._change(
            following, row, top + self.PREVIOUS, row, top + self.MTIME, now, top + self.CTIME, now
        )  # fmt: skip
        self._index[hash((ROOT, name))] = row
        if content:  # a request of its own
            start = self._space.allocate(len(content))
            os.pwrite(self._space.fd, content, start)
            word = row * self.WORDS
            self._change(
                word + self.SIZE, len(content), word + self.START, start, word + self.MTIME, now
            )  # fmt: skip

    def _find(self, name: bytes) -> int:
        row = self._index[hash((ROOT, name))]
        at = row * self.WORDS * 8 + self.NAME
        if self._map[at : at + len(name)] != name:
            raise KeyError(name)  # a whole store would go on to the next of the same hash
        return row

    def look(self, name: bytes) -> Any:
        return self.ROW.unpack_from(self._map, self._find(name) * self.WORDS * 8)

    def open(self, name: bytes) -> int:
        return self._find(name) * self.WORDS

    def read(self, handle: int, offset: int, size: int) -> bytes:
        return os.pread(self._space.fd, size, self._words[handle + self.START] + offset)

    def write(self, handle: int, offset: int, data: bytes) -> None:
        os.pwrite(self._space.fd, data, self._words[handle + self.START] + offset)

    def rename(self, old: bytes, new: bytes) -> None:
        """The new name gets a new row in the place of the old one."""
        row = self._find(old)
        new_row = self._free.pop() if self._free else self._end
        self._end = max(self._end, new_row + 1)
        fields = self.ROW.unpack_from(self._map, row * self.WORDS * 8)
        at = new_row * self.WORDS * 8
        self.ROW.pack_into(self._map, at, *fields[:-1], len(new))
        self._map[at + self.NAME : at + self.NAME + len(new)] = new
        now, words = time.time_ns(), self.WORDS
        self._change(
            fields[self.PREVIOUS] * words + self.NEXT, new_row,
            fields[self.NEXT] * words + self.PREVIOUS, new_row,
            self.TOP + self.MTIME, now, new_row * words + self.CTIME, now,
        )  # fmt: skip
        del self._index[hash((ROOT, old))]
        self._index[hash((ROOT, new))] = new_row
        self._free.append(row)

    def unlink(self, name: bytes) -> None:
        row, words, now = self._find(name), self.WORDS, time.time_ns()
        following, previous = self._words[row * words], self._words[row * words + 1]
        self._change(
            previous * words + self.NEXT, following, following * words + self.PREVIOUS, previous,
            self.TOP + self.MTIME, now, self.TOP + self.CTIME, now,
        )  # fmt: skip
        del self._index[hash((ROOT, name))]
        self._free.append(row)

    def names(self) -> int:
        return sum(1 for _ in self._entries())

    def _entries(self) -> Iterator[tuple[int, bytes, int]]:
        row = self._words[self.TOP + self.NEXT]
        while row != ROOT:
            fields = self.ROW.unpack_from(self._map, row * self.WORDS * 8)
            at = row * self.WORDS * 8 + self.NAME
            yield row, self._map[at : at + fields[-1]], fields[7]
            row = fields[self.NEXT]

    def succeed(self) -> None:
        for note in range(self._words[self.NOTES] - 2, -1, -2):
            word, former = self._words[self.NOTES + 1 + note], self._words[self.NOTES + 2 + note]
            self._words[word] = former
        self._words[self.NOTES] = 0
        self._index = {hash((ROOT, name)): row for row, name, _ in self._entries()}
        used = set(self._index.values())
        self._end = max(used, default=ROOT) + 1
        self._free = [row for row in range(ROOT + 1, self._end) if row not in used]

    def close(self) -> None:
        self._words.release()
        self._map.close()
        os.close(self._space.fd)
