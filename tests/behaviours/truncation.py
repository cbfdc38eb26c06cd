"""Cutting and extending: truncate(2), open(2) with O_TRUNC."""

import errno
import os
import random
from pathlib import Path

from .assertions import fails, make, make_directory, opened, touch

PAGE = 4096


def truncating_open_empties_the_file_for_all(root: Path) -> None:
    make(root / "file", b"content", 0o640)
    with opened(root / "file") as fd:
        before = os.fstat(fd)
        touch(root / "file", os.O_WRONLY | os.O_TRUNC | os.O_CREAT, 0o777)
        assert os.fstat(fd).st_size == 0
        assert os.pread(fd, 10, 0) == b""
        assert os.fstat(fd).st_ino == before.st_ino
        assert os.fstat(fd).st_mode == before.st_mode
        (root / "file").write_bytes(b"new")
        assert os.pread(fd, 10, 0) == b"new"


def rewriting_in_a_loop_always_shows_the_last(root: Path) -> None:
    for number in range(300):
        content = b"%d" % number * (number % 7)
        (root / "file").write_bytes(content)
        assert (root / "file").read_bytes() == content
        assert os.stat(root / "file").st_size == len(content)


def truncation_cuts_and_extends_with_zeros(root: Path) -> None:
    content = random.Random(1).randbytes(3 * PAGE)
    path = make(root / "file", content)
    for size in (2 * PAGE + 7, PAGE, PAGE - 1, 10, 0):
        os.truncate(path, size)
        assert path.read_bytes() == content[:size]
    os.truncate(path, 5 * PAGE + 3)
    assert path.read_bytes() == bytes(5 * PAGE + 3)


def what_was_cut_off_does_not_come_back(root: Path) -> None:
    for cut in (1, 100, PAGE, PAGE + 1, 3 * PAGE - 1):
        path = make(root / str(cut), b"x" * 3 * PAGE)
        with opened(path, os.O_RDWR) as fd:
            os.ftruncate(fd, cut)
            os.ftruncate(fd, 3 * PAGE)
            assert os.pread(fd, 4 * PAGE, 0) == b"x" * cut + bytes(3 * PAGE - cut)
            os.ftruncate(fd, cut)
            os.pwrite(fd, b"y", 3 * PAGE)
        assert path.read_bytes() == b"x" * cut + bytes(3 * PAGE - cut) + b"y"


def truncation_is_refused_where_it_makes_no_sense(root: Path) -> None:
    make_directory(root / "directory")
    os.mkfifo(root / "fifo")
    make(root / "file", b"content")
    with fails(errno.EISDIR):
        os.truncate(root / "directory", 0)
    with fails(errno.EINVAL):
        os.truncate(root / "fifo", 0)
    with fails(errno.EINVAL):
        os.truncate(root / "file", -1)
    assert (root / "file").read_bytes() == b"content"
