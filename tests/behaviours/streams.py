"""Reading directories: getdents(2), readdir(3), telldir(3)."""

import ctypes
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from .assertions import KINDS, make, make_directory, opened, touch

CREATE = os.O_CREAT | os.O_WRONLY
_libc = ctypes.CDLL(None, use_errno=True)


class _Dirent(ctypes.Structure):
    _fields_ = (
        ("d_ino", ctypes.c_uint64),
        ("d_off", ctypes.c_int64),
        ("d_reclen", ctypes.c_uint16),
        ("d_type", ctypes.c_uint8),
        ("d_name", ctypes.c_char * 256),
    )


_libc.opendir.restype = _libc.fdopendir.restype = ctypes.c_void_p
_libc.readdir64.restype = ctypes.POINTER(_Dirent)
_libc.telldir.restype = ctypes.c_long


class _Entry(NamedTuple):
    name: str
    inode: int
    type: int


class _Stream:
    """opendir(3) and its relatives; `.` and `..` are left out by names()."""

    def __init__(self, path: Path) -> None:
        self._stream = ctypes.c_void_p(_libc.opendir(os.fsencode(path)))
        assert self._stream, f"opendir of {path}: {os.strerror(ctypes.get_errno())}"

    def __enter__(self) -> "_Stream":
        return self

    def __exit__(self, *_: Any) -> None:
        _libc.closedir(self._stream)

    def __iter__(self) -> Iterator[_Entry]:
        while entry := self.next():
            yield entry

    def next(self) -> _Entry | None:
        ctypes.set_errno(0)
        found = _libc.readdir64(self._stream)
        if not found:
            assert ctypes.get_errno() == 0, os.strerror(ctypes.get_errno())
            return None
        entry = found.contents
        return _Entry(os.fsdecode(entry.d_name), entry.d_ino, entry.d_type)

    def names(self) -> list[str]:
        return [entry.name for entry in self if entry.name not in (".", "..")]

    def tell(self) -> int:
        return _libc.telldir(self._stream)

    def seek(self, position: int) -> None:
        _libc.seekdir(self._stream, ctypes.c_long(position))

    def rewind(self) -> None:
        _libc.rewinddir(self._stream)


def _fill(root: Path, count: int) -> list[str]:
    names = [f"file{number}" for number in range(count)]
    with opened(root) as fd:
        for name in names:
            os.mknod(name, dir_fd=fd)  # a third of the requests that creat(2) and close(2) are
    return names


def dot_and_dotdot_are_listed_with_their_inodes(root: Path) -> None:
    os.mkdir(root / "directory")
    with _Stream(root / "directory") as stream:
        entries = {entry.name: entry for entry in stream}
    assert set(entries) == {".", ".."}
    assert entries["."].inode == os.stat(root / "directory").st_ino
    assert entries[".."].inode == os.stat(root).st_ino
    assert {entry.type for entry in entries.values()} <= {0, 4}


def entries_tell_inode_and_type(root: Path) -> None:
    for kind, maker in KINDS.items():
        maker(root / kind)
    with _Stream(root) as stream:
        entries = {entry.name: entry for entry in stream}
    for kind in KINDS:
        st = os.lstat(root / kind)
        assert entries[kind].inode == st.st_ino
        assert entries[kind].type in (0, stat.S_IFMT(st.st_mode) >> 12), kind


def many_entries_are_listed_once_each(root: Path) -> None:
    names = _fill(root, 20_000)
    start = time.perf_counter()
    listed = os.listdir(root)
    took = time.perf_counter() - start
    assert len(listed) == 20_000
    assert set(listed) == set(names)
    assert took < 2, f"{took:.2f} s"
    with _Stream(root) as stream:
        for name in stream.names():
            os.unlink(root / name)
    assert os.listdir(root) == []
    os.rmdir(root)
    os.mkdir(root)


def entries_are_not_skipped_while_others_are_removed(root: Path) -> None:
    """What rm -rf does: read some, remove them, read on."""
    names = _fill(root, 3000)
    seen = []
    with _Stream(root) as stream:
        for entry in stream:
            if entry.name in (".", ".."):
                continue
            seen.append(entry.name)
            os.unlink(root / entry.name)
    assert sorted(seen) == sorted(names)
    assert os.listdir(root) == []


def entries_that_stay_are_listed_once_while_others_come_and_go(root: Path) -> None:
    staying = set(_fill(root, 1500))
    fleeting = [f"fleeting{number}" for number in range(500)]
    for name in fleeting:
        touch(root / name, CREATE)
    seen = []
    with _Stream(root) as stream:
        for index, entry in enumerate(stream):
            seen.append(entry.name)
            if index % 3 == 0 and fleeting:
                os.unlink(root / fleeting.pop())
            if index % 2 == 0:
                touch(root / f"new{index}", CREATE)
            if index > 20_000:
                break
    stayed = [name for name in seen if name in staying]
    assert len(stayed) == len(staying)
    assert set(stayed) == staying
    assert len(seen) == len(set(seen))


def renaming_while_listing_loses_no_other_entry(root: Path) -> None:
    names = set(_fill(root, 1000))
    seen = []
    with _Stream(root) as stream:
        for index, entry in enumerate(stream):
            seen.append(entry.name)
            if index % 10 == 0:
                os.rename(root / "file500", root / "moved")
                os.rename(root / "moved", root / "file500")
            if index > 20_000:
                break
    for name in names - {"file500"}:
        assert seen.count(name) == 1


def positions_can_be_returned_to(root: Path) -> None:
    _fill(root, 600)
    with _Stream(root) as stream:
        positions, order = [], []
        while True:
            positions.append(stream.tell())
            entry = stream.next()
            if entry is None:
                break
            order.append(entry.name)
        assert len(order) == 602
        for index in (0, 1, 2, 3, 100, 301, 599, 601, 602, 50):
            stream.seek(positions[index])
            assert [entry.name for entry in stream] == order[index:]


def positions_survive_removals(root: Path) -> None:
    _fill(root, 600)
    with _Stream(root) as stream:
        before = [stream.next() for _ in range(300)]
        position = stream.tell()
        rest = [entry.name for entry in stream]
        for entry in before:
            if entry is not None and entry.name not in (".", ".."):
                os.unlink(root / entry.name)
        stream.seek(position)
        assert [entry.name for entry in stream] == rest


def rewinding_shows_what_is_new(root: Path) -> None:
    _fill(root, 10)
    with _Stream(root) as stream:
        assert len(stream.names()) == 10
        assert stream.next() is None
        make(root / "new")
        os.unlink(root / "file3")
        stream.rewind()
        names = stream.names()
    assert "new" in names
    assert "file3" not in names
    assert len(names) == 10


def several_streams_are_independent(root: Path) -> None:
    names = sorted(_fill(root, 400))
    with _Stream(root) as one, _Stream(root) as two:
        first = [one.next() for _ in range(100)]
        assert sorted(two.names()) == names
        rest = one.names()
    early = [entry.name for entry in first if entry and entry.name not in (".", "..")]
    assert sorted(early + rest) == names


def a_listing_shows_changes_at_once(root: Path) -> None:
    for number in range(30):
        make(root / str(number))
        assert len(os.listdir(root)) == 1
        os.rename(root / str(number), root / "renamed")
        assert os.listdir(root) == ["renamed"]
        os.unlink(root / "renamed")
        assert os.listdir(root) == []


def long_names_are_listed_whole(root: Path) -> None:
    names = {f"{number:03}" + "n" * (252 - number % 3) for number in range(300)}
    for name in names:
        make(root / name)
    assert set(os.listdir(root)) == names
    assert len(os.listdir(root)) == 300


def listing_walks_into_what_it_lists(root: Path) -> None:
    for number in range(200):
        make(make_directory(root / f"d{number}") / f"f{number}")
    with _Stream(root) as stream:
        for name in stream.names():
            assert os.listdir(root / name) == ["f" + name[1:]]
