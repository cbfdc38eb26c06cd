"""Time stamps: utimensat(2), inode(7)."""

import errno
import os
import time
from pathlib import Path

from .assertions import ALICE, BOB, KINDS, fails, make, opened, stamps, tick, touch

SECOND = 10**9
OLD = (1_000_000_000 * SECOND + 123_456_789, 1_100_000_000 * SECOND + 987_654_321)


def _times(path: Path | int) -> tuple[int, int]:
    st = os.fstat(path) if isinstance(path, int) else os.lstat(path)
    return st.st_atime_ns, st.st_mtime_ns


def new_nodes_have_the_present_time(root: Path) -> None:
    for kind, maker in KINDS.items():
        tick()
        before = time.time_ns()
        maker(root / kind)
        after = time.time_ns()
        st = os.lstat(root / kind)
        for stamp in (st.st_atime_ns, st.st_mtime_ns, st.st_ctime_ns):
            assert before - SECOND // 50 <= stamp <= after, kind


def utime_sets_nanoseconds_of_every_kind(root: Path) -> None:
    for kind, maker in KINDS.items():
        maker(root / kind)
        os.utime(root / kind, ns=OLD, follow_symlinks=False)
        assert _times(root / kind) == OLD, kind


def utime_moves_ctime(root: Path) -> None:
    make(root / "file")
    os.utime(root / "file", ns=OLD)
    with stamps("ctime", root / "file"), stamps("", root):
        os.utime(root / "file", ns=OLD)


def utime_follows_symlinks_unless_told(root: Path) -> None:
    make(root / "file")
    os.symlink("file", root / "link")
    before = _times(root / "file")
    os.utime(root / "link", ns=OLD, follow_symlinks=False)
    assert (_times(root / "file"), _times(root / "link")) == (before, OLD)
    os.utime(root / "link", ns=(OLD[1], OLD[0]))
    assert _times(root / "file") == (OLD[1], OLD[0])


def utime_without_times_means_now(root: Path) -> None:
    make(root / "file")
    os.utime(root / "file", ns=OLD)
    tick()
    before = time.time_ns()
    os.utime(root / "file")
    for stamp in _times(root / "file"):
        assert before - SECOND // 50 <= stamp <= time.time_ns()


def futimens_works_on_any_descriptor(root: Path) -> None:
    make(root / "file")
    for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR):
        with opened(root / "file", flags) as fd:
            os.utime(fd, ns=(OLD[0] + flags, OLD[1] + flags))
            assert _times(fd) == _times(root / "file") == (OLD[0] + flags, OLD[1] + flags)


def times_long_past_and_future_are_kept(root: Path) -> None:
    make(root / "file")
    for seconds in (0, 1, -1, 1 - 2**31, 2**31 - 1, 2**31, 2**32 + 5, 15_000_000_000):
        os.utime(root / "file", ns=(seconds * SECOND, seconds * SECOND + 5))
        assert _times(root / "file") == (seconds * SECOND, seconds * SECOND + 5), seconds


def setting_times_is_for_the_owner(root: Path) -> None:
    path = ALICE.owns(make(root / "file", b"", 0o666))
    ALICE.does(lambda: os.utime(path, ns=OLD))
    with stamps("", path):
        BOB.fails(errno.EPERM, lambda: os.utime(path, ns=(1, 1)))
    assert _times(path) == OLD


def setting_times_to_now_is_for_writers(root: Path) -> None:
    path = ALICE.owns(make(root / "file", b"", 0o644))
    os.utime(path, ns=OLD)
    BOB.fails(errno.EACCES, lambda: os.utime(path))
    assert _times(path) == OLD
    os.chmod(path, 0o666)
    BOB.does(lambda: os.utime(path))
    assert _times(path) > OLD


def writing_moves_mtime_and_ctime(root: Path) -> None:
    make(root / "file", b"content")
    with opened(root / "file", os.O_RDWR) as fd:
        for call in (
            lambda: os.write(fd, b"x"),
            lambda: os.pwrite(fd, b"x", 0),
            lambda: os.pwrite(fd, b"x", 100_000),
        ):
            with stamps("mtime ctime", fd), stamps("", root):
                call()
        with stamps("", fd):
            os.write(fd, b"")
        with stamps("", fd):
            os.pread(fd, 10, 0)
            os.lseek(fd, 0, os.SEEK_SET)


def closing_and_syncing_keep_the_times(root: Path) -> None:
    make(root / "file")
    fd = os.open(root / "file", os.O_RDWR)
    os.write(fd, b"content")
    with stamps("", root / "file"):
        os.fsync(fd)
        tick()
        os.close(fd)


def truncation_moves_mtime_and_ctime(root: Path) -> None:
    path = make(root / "file", b"content")
    for size in (3, 0, 5000):
        with stamps("mtime ctime", path), stamps("", root):
            os.truncate(path, size)
    with opened(path, os.O_WRONLY) as fd, stamps("mtime ctime", path):
        os.ftruncate(fd, 1)
    with stamps("mtime ctime", path):
        touch(path, os.O_WRONLY | os.O_TRUNC)


def times_set_after_writing_stay(root: Path) -> None:
    """What tar, cp -p and rsync rely on."""
    path = root / "file"
    with opened(path, os.O_CREAT | os.O_WRONLY) as fd:
        os.write(fd, b"x" * 100_000)
        os.utime(fd, ns=OLD)
        assert _times(fd) == OLD
    assert _times(path) == OLD
    with opened(path, os.O_WRONLY) as fd:
        os.write(fd, b"y" * 100_000)
        os.utime(path, ns=OLD)
    tick()
    with opened(path) as fd:
        os.fsync(fd)
    assert _times(path) == OLD


def times_set_before_writing_move_on(root: Path) -> None:
    path = make(root / "file")
    with opened(path, os.O_WRONLY) as fd:
        os.utime(fd, ns=OLD)
        os.write(fd, b"x")
        assert os.fstat(fd).st_mtime_ns > OLD[1]
    assert os.stat(path).st_mtime_ns > OLD[1]


def setting_one_time_keeps_the_other(root: Path) -> None:
    """touch -a and touch -m use UTIME_OMIT."""
    path = make(root / "file")
    os.utime(path, ns=OLD)
    assert os.spawnlp(os.P_WAIT, "touch", "touch", "-a", "-d", "@5.000000007", str(path)) == 0
    assert _times(path) == (5 * SECOND + 7, OLD[1])
    assert os.spawnlp(os.P_WAIT, "touch", "touch", "-m", "-d", "@6.000000008", str(path)) == 0
    assert _times(path) == (5 * SECOND + 7, 6 * SECOND + 8)
    with stamps("ctime", path):
        assert os.spawnlp(os.P_WAIT, "touch", "touch", "-a", str(path)) == 0


def reading_moves_atime_when_it_is_older_than_mtime(root: Path) -> None:
    path = make(root / "file", b"content")
    with opened(path, os.O_RDWR) as fd:
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.utime(path, ns=OLD)
    if os.statvfs(path).f_flag & os.ST_NOATIME:
        return
    assert path.read_bytes() == b"content"
    assert os.stat(path).st_atime_ns > OLD[0]
    assert os.stat(path).st_mtime_ns == OLD[1]


def metadata_moves_ctime_only(root: Path) -> None:
    path = make(root / "file")
    with opened(path) as fd:
        for call in (
            lambda: os.link(path, root / "link"),
            lambda: os.unlink(root / "link"),
            lambda: os.setxattr(path, "user.x", b"1"),
            lambda: os.removexattr(path, "user.x"),
            lambda: os.rename(path, root / "renamed"),
        ):
            with stamps("ctime", fd):
                call()


def names_move_the_times_of_their_directories(root: Path) -> None:
    one, two = root / "one", root / "two"
    for directory in (one, two):
        os.mkdir(directory)
    for kind, maker in KINDS.items():
        with stamps("mtime ctime", one), stamps("", root, two):
            maker(one / kind)
        with stamps("mtime ctime", one), stamps("", root, two):
            os.rename(one / kind, one / "renamed")
        with stamps("mtime ctime", one, two), stamps("", root):
            os.rename(one / "renamed", two / kind)
        with stamps("mtime ctime", two), stamps("", root, one):
            (os.rmdir if kind == "directory" else os.unlink)(two / kind)
    make(two / "file")
    with stamps("mtime ctime", one), stamps("", two):
        os.link(two / "file", one / "link")


def refused_changes_leave_the_times_alone(root: Path) -> None:
    make(root / "file")
    os.makedirs(root / "full" / "sub")
    with stamps("", root, root / "file", root / "full"):
        for number, call in (
            (errno.EEXIST, lambda: os.mkdir(root / "file")),
            (errno.EEXIST, lambda: os.link(root / "file", root / "full")),
            (errno.EEXIST, lambda: os.symlink("x", root / "file")),
            (errno.ENOTEMPTY, lambda: os.rmdir(root / "full")),
            (errno.EISDIR, lambda: os.unlink(root / "full")),
            (errno.ENOTDIR, lambda: os.rename(root / "full", root / "file")),
            (errno.ENOENT, lambda: os.rename(root / "missing", root / "new")),
            (errno.EISDIR, lambda: os.truncate(root / "full", 0)),
        ):
            with fails(number):
                call()


def looking_changes_no_times(root: Path) -> None:
    make(root / "file", b"content")
    os.symlink("file", root / "link")
    with stamps("", root, root / "file", root / "link"):
        os.stat(root / "link")
        os.readlink(root / "link")
        os.listdir(root)
        os.listxattr(root / "file")
        os.access(root / "file", os.W_OK)
        (root / "file").read_bytes()
        touch(root / "file", os.O_WRONLY)
