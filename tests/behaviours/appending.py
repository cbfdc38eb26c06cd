"""Appending: open(2) with O_APPEND."""

import fcntl
import os
from pathlib import Path

from .assertions import make, opened


def appending_writes_at_the_end_whatever_the_offset(root: Path) -> None:
    make(root / "file", b"0123")
    with opened(root / "file", os.O_RDWR | os.O_APPEND) as fd:
        os.lseek(fd, 0, os.SEEK_SET)
        os.write(fd, b"45")
        assert os.lseek(fd, 0, os.SEEK_CUR) == 6
        os.pwrite(fd, b"67", 0)  # Linux appends: BUGS in pwrite(2)
        assert os.pread(fd, 4, 0) == b"0123"
    assert (root / "file").read_bytes() == b"01234567"


def appending_is_a_matter_of_each_descriptor(root: Path) -> None:
    make(root / "file", b"0123456789")
    with (
        opened(root / "file", os.O_WRONLY | os.O_APPEND) as end,
        opened(root / "file", os.O_RDWR) as start,
    ):
        os.write(start, b"ab")
        os.write(end, b"XY")
        os.write(start, b"cd")
        os.write(end, b"Z")
    assert (root / "file").read_bytes() == b"abcd456789XYZ"


def appending_follows_growth_by_others(root: Path) -> None:
    make(root / "file")
    fds = [os.open(root / "file", os.O_WRONLY | os.O_APPEND) for _ in range(5)]
    for turn in range(100):
        for number, fd in enumerate(fds):
            os.write(fd, b"%d" % number if turn % 2 else b"<%d>" % number)
    for fd in fds:
        os.close(fd)
    assert (root / "file").read_bytes() == b"<0><1><2><3><4>01234" * 50
    with opened(root / "file", os.O_WRONLY | os.O_APPEND) as fd:
        os.truncate(root / "file", 3)
        os.write(fd, b"end")
    assert (root / "file").read_bytes() == b"<0>end"


def appending_can_be_switched(root: Path) -> None:
    make(root / "file", b"0123")
    with opened(root / "file", os.O_WRONLY) as fd:
        fcntl.fcntl(fd, fcntl.F_SETFL, os.O_APPEND)
        os.write(fd, b"45")
        fcntl.fcntl(fd, fcntl.F_SETFL, 0)
        os.pwrite(fd, b"ab", 0)
    assert (root / "file").read_bytes() == b"ab2345"


def appends_of_several_processes_are_all_kept(root: Path) -> None:
    make(root / "log")
    pids = []
    for number in range(4):
        pid = os.fork()
        if pid == 0:
            with opened(root / "log", os.O_WRONLY | os.O_APPEND) as fd:
                for _ in range(100):
                    os.write(fd, b"%d" % number * 99 + b"\n")
            os._exit(0)
        pids.append(pid)
    assert all(os.waitpid(pid, 0)[1] == 0 for pid in pids)
    lines = (root / "log").read_bytes().splitlines()
    assert sorted(lines) == sorted(b"%d" % number * 99 for number in range(4) for _ in range(100))
