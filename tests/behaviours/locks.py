"""Locks between the users of one mount: flock(2), fcntl_locking(2)."""

import errno
import fcntl
import os
import struct
import time
from pathlib import Path

from forked import in_child

from .assertions import fails, make, opened

BLOCKED = (errno.EAGAIN, errno.EACCES)
EXCLUSIVE, SHARED = fcntl.LOCK_EX | fcntl.LOCK_NB, fcntl.LOCK_SH | fcntl.LOCK_NB


def _free(path: Path, kind: int, length: int = 0, start: int = 0, flags: int = os.O_RDWR) -> bool:
    """Whether another process gets this record lock."""

    def attempt() -> bool:
        with opened(path, flags) as fd:
            try:
                fcntl.lockf(fd, kind, length, start)
            except OSError as error:
                assert error.errno in BLOCKED, error
                return False
            return True

    return in_child(attempt)


def _flock_free(path: Path, kind: int) -> bool:
    with opened(path) as fd:
        try:
            fcntl.flock(fd, kind)
        except OSError as error:
            assert error.errno in BLOCKED, error
            return False
        return True


def record_locks_exclude_other_processes(root: Path) -> None:
    path = make(root / "file", b"content")
    with opened(path, os.O_RDWR) as fd:
        fcntl.lockf(fd, EXCLUSIVE)
        assert not _free(path, EXCLUSIVE)
        assert not _free(path, SHARED)
        fcntl.lockf(fd, SHARED)
        assert _free(path, SHARED)
        assert not _free(path, EXCLUSIVE)
        fcntl.lockf(fd, fcntl.LOCK_UN)
        assert _free(path, EXCLUSIVE)


def record_locks_are_for_ranges(root: Path) -> None:
    path = make(root / "file", b"x" * 100)
    with opened(path, os.O_RDWR) as fd:
        fcntl.lockf(fd, EXCLUSIVE, 10, 20)
        assert _free(path, EXCLUSIVE, 20, 0)
        assert _free(path, EXCLUSIVE, 0, 30)
        assert not _free(path, EXCLUSIVE, 1, 29)
        fcntl.lockf(fd, fcntl.LOCK_UN, 2, 24)
        assert _free(path, EXCLUSIVE, 2, 24)
        assert not _free(path, EXCLUSIVE, 1, 23)
        assert not _free(path, EXCLUSIVE, 1, 26)


def record_locks_end_with_any_close(root: Path) -> None:
    path = make(root / "file")
    with opened(path, os.O_RDWR) as fd:
        fcntl.lockf(fd, EXCLUSIVE)
        os.close(os.open(path, os.O_RDONLY))
        assert _free(path, EXCLUSIVE)


def record_locks_tell_their_holder(root: Path) -> None:
    path = make(root / "file")
    with opened(path, os.O_RDWR) as fd:
        fcntl.lockf(fd, EXCLUSIVE, 5, 10)

        def ask() -> tuple[int, int, int, int]:
            request = struct.pack("hhqqi4x", fcntl.F_RDLCK, 0, 0, 0, 0)
            with opened(path) as other:
                answer = fcntl.fcntl(other, fcntl.F_GETLK, request)
            kind, _, start, length, pid = struct.unpack("hhqqi4x", answer)
            return kind, start, length, pid

        assert in_child(ask) == (fcntl.F_WRLCK, 10, 5, os.getpid())


def record_locks_need_their_direction(root: Path) -> None:
    path = make(root / "file")
    with opened(path, os.O_RDONLY) as fd, fails(errno.EBADF):
        fcntl.lockf(fd, EXCLUSIVE)
    with opened(path, os.O_WRONLY) as fd, fails(errno.EBADF):
        fcntl.lockf(fd, SHARED)


def record_locks_wait_for_their_turn(root: Path) -> None:
    path = make(root / "file")
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        with opened(path, os.O_RDWR) as fd:
            fcntl.lockf(fd, fcntl.LOCK_EX)
            os.write(writer, b"locked")
            time.sleep(0.1)
            os.pwrite(fd, b"done", 0)
        os._exit(0)
    os.read(reader, 6)
    with opened(path, os.O_RDWR) as fd:
        fcntl.lockf(fd, fcntl.LOCK_EX)
        assert os.pread(fd, 4, 0) == b"done"
    os.waitpid(pid, 0)


def record_locks_that_would_deadlock_are_refused(root: Path) -> None:
    path = make(root / "file", b"xx")
    (ready, readied), (go, went) = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        with opened(path, os.O_RDWR) as fd:
            fcntl.lockf(fd, fcntl.LOCK_EX, 1, 1)
            os.write(readied, b"1")
            os.read(go, 1)
            fcntl.lockf(fd, fcntl.LOCK_EX, 1, 0)
        os._exit(0)
    with opened(path, os.O_RDWR) as fd:
        fcntl.lockf(fd, fcntl.LOCK_EX, 1, 0)
        os.read(ready, 1)
        os.write(went, b"1")
        while "->" not in Path("/proc/locks").read_text():
            time.sleep(0.001)
        time.sleep(0.02)
        with fails(errno.EDEADLK):
            fcntl.lockf(fd, fcntl.LOCK_EX, 1, 1)
    os.waitpid(pid, 0)


def open_file_description_locks_exclude_within_a_process(root: Path) -> None:
    path = make(root / "file")
    set_lock = getattr(fcntl, "F_OFD_SETLK", 37)
    request = struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0)
    with opened(path, os.O_RDWR) as two:
        with opened(path, os.O_RDWR) as one:
            fcntl.fcntl(one, set_lock, request)
            with fails(*BLOCKED):
                fcntl.fcntl(two, set_lock, request)
        fcntl.fcntl(two, set_lock, request)


def flock_excludes_other_descriptors(root: Path) -> None:
    path = make(root / "file")
    with opened(path) as fd:
        fcntl.flock(fd, EXCLUSIVE)
        assert not _flock_free(path, EXCLUSIVE)
        assert not in_child(_flock_free, path, SHARED)
        fcntl.flock(fd, SHARED)
        assert _flock_free(path, SHARED)
        assert not _flock_free(path, EXCLUSIVE)
        fcntl.flock(fd, fcntl.LOCK_UN)
        assert in_child(_flock_free, path, EXCLUSIVE)


def flock_is_held_until_the_last_copy_closes(root: Path) -> None:
    path = make(root / "file")
    fd = os.open(path, os.O_RDONLY)
    fcntl.flock(fd, EXCLUSIVE)
    copy = os.dup(fd)
    os.close(fd)
    assert not _flock_free(path, EXCLUSIVE)
    os.close(os.open(path, os.O_RDONLY))
    assert not _flock_free(path, EXCLUSIVE)
    os.close(copy)
    assert _flock_free(path, EXCLUSIVE)


def flock_works_on_directories_and_by_other_names(root: Path) -> None:
    with opened(root) as fd:
        fcntl.flock(fd, EXCLUSIVE)
        assert not _flock_free(root, SHARED)
    make(root / "file")
    os.link(root / "file", root / "link")
    with opened(root / "file") as fd:
        fcntl.flock(fd, EXCLUSIVE)
        os.rename(root / "file", root / "renamed")
        assert not _flock_free(root / "link", EXCLUSIVE)
        assert not _flock_free(root / "renamed", EXCLUSIVE)


def locks_end_with_their_process(root: Path) -> None:
    path = make(root / "file")

    def lock_and_leave() -> None:
        fd = os.open(path, os.O_RDWR)
        fcntl.flock(fd, EXCLUSIVE)
        fcntl.lockf(fd, EXCLUSIVE)

    in_child(lock_and_leave)
    assert _flock_free(path, EXCLUSIVE)
    assert _free(path, EXCLUSIVE)
