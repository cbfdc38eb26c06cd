"""Memory mappings: mmap(2)."""

import ctypes
import errno
import mmap
import os
import signal
import time
from pathlib import Path

from forked import Died, in_child

from .assertions import fails, make, opened, stamps

PAGE = mmap.PAGESIZE
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p


def _mapped(fd: int, size: int = 0, shared: bool = True, write: bool = True) -> mmap.mmap:
    flags = mmap.MAP_SHARED if shared else mmap.MAP_PRIVATE
    protection = mmap.PROT_READ | (mmap.PROT_WRITE if write else 0)
    return mmap.mmap(fd, size, flags, protection)


def a_shared_mapping_and_the_file_are_one(root: Path) -> None:
    make(root / "file", b"a" * 3 * PAGE)
    with opened(root / "file", os.O_RDWR) as fd:
        mapping = _mapped(fd)
        for number in range(20):
            os.pwrite(fd, b"W%d" % (number % 10), PAGE + number)
            assert mapping[PAGE + number : PAGE + number + 2] == b"W%d" % (number % 10)
            mapping[5 + number : 7 + number] = b"M%d" % (number % 10)
            assert os.pread(fd, 2, 5 + number) == b"M%d" % (number % 10)
            assert (root / "file").read_bytes()[5 + number : 7 + number] == b"M%d" % (number % 10)
        mapping.close()


def a_mapping_outlives_its_descriptor(root: Path) -> None:
    """Python's own mappings keep a descriptor of the file."""
    make(root / "file", b"a" * PAGE)
    assert (root / "file").read_bytes() == b"a" * PAGE
    with opened(root / "file", os.O_RDWR) as fd:
        protection = mmap.PROT_READ | mmap.PROT_WRITE
        address = _libc.mmap(None, PAGE, protection, mmap.MAP_SHARED, fd, ctypes.c_long(0))
    assert address not in (None, ctypes.c_void_p(-1).value)
    try:
        for content in b"bcd":
            ctypes.memset(address, content, PAGE)
            time.sleep(0.02)
            assert (root / "file").read_bytes() == bytes([content]) * PAGE
    finally:
        assert _libc.munmap(ctypes.c_void_p(address), PAGE) == 0


def a_private_mapping_keeps_its_changes(root: Path) -> None:
    make(root / "file", b"a" * 2 * PAGE)
    with opened(root / "file", os.O_RDONLY) as fd:
        mapping = _mapped(fd, shared=False)
        mapping[0:4] = b"mine"
        assert os.pread(fd, 4, 0) == b"aaaa"
        assert mapping[:5] == b"minea"
    assert (root / "file").read_bytes() == b"a" * 2 * PAGE


def several_mappings_of_a_file_are_one(root: Path) -> None:
    make(root / "file", bytes(2 * PAGE))
    os.link(root / "file", root / "link")
    with opened(root / "file", os.O_RDWR) as one, opened(root / "link", os.O_RDWR) as two:
        first, second = _mapped(one), _mapped(two)
        for number in range(10):
            first[number * 100] = number + 1
            assert second[number * 100] == number + 1
            second[PAGE + number] = number
            assert first[PAGE + number] == number


def mappings_are_shared_between_processes(root: Path) -> None:
    make(root / "file", bytes(PAGE))
    with opened(root / "file", os.O_RDWR) as fd:
        mapping = _mapped(fd)

        def write() -> None:
            with opened(root / "file", os.O_RDWR) as other:
                _mapped(other)[10:15] = b"child"

        in_child(write)
        assert mapping[10:15] == b"child"


def a_mapping_outlives_descriptor_and_name(root: Path) -> None:
    make(root / "file", b"content".ljust(PAGE))
    with opened(root / "file", os.O_RDWR) as fd:
        mapping = _mapped(fd)
    os.rename(root / "file", root / "renamed")
    mapping[0:3] = b"CON"
    assert (root / "renamed").read_bytes()[:7] == b"CONtent"
    os.link(root / "renamed", root / "kept")
    os.unlink(root / "renamed")
    mapping[3:7] = b"TENT"
    mapping.flush()
    assert (root / "kept").read_bytes()[:7] == b"CONTENT"
    os.unlink(root / "kept")
    mapping[0:3] = b"end"
    mapping.flush()
    assert mapping[:7] == b"endTENT"


def what_is_mapped_and_written_stays_after_unmapping(root: Path) -> None:
    size = 64 * PAGE + 100
    with opened(root / "file", os.O_CREAT | os.O_RDWR) as fd:
        os.ftruncate(fd, size)
        mapping = _mapped(fd, size)
        for start in range(0, size, PAGE // 2):
            mapping[start : start + 8] = start.to_bytes(8, "big")[: size - start]
        mapping.close()
    content = (root / "file").read_bytes()
    assert len(content) == size
    for start in range(0, size, PAGE // 2):
        assert content[start : start + 8] == start.to_bytes(8, "big")[: size - start]


def a_mapping_ends_with_zeros_in_its_last_page(root: Path) -> None:
    make(root / "file", b"x" * (PAGE + 10))
    with opened(root / "file", os.O_RDWR) as fd:
        mapping = _mapped(fd, PAGE + 10)
        assert mapping[PAGE:] == b"x" * 10
        os.ftruncate(fd, 2 * PAGE)
        larger = _mapped(fd, 2 * PAGE)
        assert larger[PAGE:] == b"x" * 10 + bytes(PAGE - 10)
        os.pwrite(fd, b"end", 2 * PAGE - 3)
        assert larger[2 * PAGE - 3 :] == b"end"


def touching_a_mapping_beyond_the_end_is_a_bus_error(root: Path) -> None:
    def overrun(write: bool) -> None:
        make(root / f"file{write}", b"x" * 3 * PAGE)
        with opened(root / f"file{write}", os.O_RDWR) as fd:
            mapping = _mapped(fd)
            mapping[2 * PAGE] = 1
            os.ftruncate(fd, PAGE + 1)
            assert mapping[PAGE] == ord("x")
            assert mapping[PAGE + 1] == 0
            if write:
                mapping[2 * PAGE] = 1
            else:
                mapping[2 * PAGE]

    for write in (False, True):
        try:
            in_child(overrun, write)
        except Died as death:
            assert death.signal == signal.SIGBUS
        else:
            raise AssertionError("no SIGBUS")


def truncation_shows_in_a_mapping(root: Path) -> None:
    make(root / "file", b"x" * 2 * PAGE)
    with opened(root / "file", os.O_RDWR) as fd:
        mapping = _mapped(fd)
        os.ftruncate(fd, 100)
        os.ftruncate(fd, 2 * PAGE)
        assert mapping[:] == b"x" * 100 + bytes(2 * PAGE - 100)


def writing_through_a_mapping_needs_a_writable_descriptor(root: Path) -> None:
    make(root / "file", b"x" * PAGE)
    with opened(root / "file", os.O_RDONLY) as fd:
        assert _mapped(fd, write=False)[0] == ord("x")
        with fails(errno.EACCES):
            _mapped(fd)
    with opened(root / "file", os.O_WRONLY) as fd, fails(errno.EACCES):
        _mapped(fd, PAGE)
    with opened(root) as fd, fails(errno.ENODEV, errno.EACCES):
        _mapped(fd, PAGE, write=False)


def writing_through_a_mapping_moves_mtime(root: Path) -> None:
    make(root / "file", b"x" * PAGE)
    with opened(root / "file", os.O_RDWR) as fd:
        mapping = _mapped(fd)
        with stamps("mtime ctime", fd):
            mapping[0] = 1
            mapping.flush()
            os.fsync(fd)


def a_file_can_be_written_from_its_own_mapping(root: Path) -> None:
    make(root / "file", b"ab" * PAGE)
    with opened(root / "file", os.O_RDWR) as fd:
        mapping = _mapped(fd, write=False)
        assert os.pwrite(fd, memoryview(mapping), 2 * PAGE) == 2 * PAGE
        assert os.pread(fd, 5 * PAGE, 0) == b"ab" * 2 * PAGE
