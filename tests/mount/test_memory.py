"""What memory promises beyond the behaviours of a file system: its limits and its end."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from behaviours.assertions import fails, make, opened
from supervised import Mounted, wait_until

MIB = 1 << 20


def _free(path: Path) -> int:
    st = os.statvfs(path)
    return st.f_bfree * st.f_frsize


def _fill(path: Path) -> int:
    """Write until nothing goes in any more; the bytes that went in."""
    with opened(path, os.O_CREAT | os.O_WRONLY) as fd:
        total = 0
        try:
            while total < 100 * MIB:
                count = os.write(fd, b"x" * 65536)
                os.fsync(fd)
                total += count
        except OSError as error:
            assert error.errno == errno.ENOSPC, error
        return total


def test_the_size_limit_is_kept_and_space_comes_back(mounted: Mounted) -> None:
    mount = mounted("memory", size="8MiB")

    def work() -> None:
        st = os.statvfs(mount.path)
        assert 7 * MIB <= st.f_blocks * st.f_frsize <= 8 * MIB
        for _ in range(3):
            written = _fill(mount.path / "file")
            assert 7 * MIB <= written <= 8 * MIB
            assert _free(mount.path) < MIB
            with fails(errno.ENOSPC), opened(mount.path / "other", os.O_CREAT | os.O_RDWR) as fd:
                for _ in range(64):
                    os.write(fd, b"y" * 65536)
                    os.fsync(fd)
            os.unlink(mount.path / "other")
            os.unlink(mount.path / "file")
            # RELEASE comes after close(2) has returned.
            wait_until(lambda: _free(mount.path) > 7 * MIB, 5, "the space is free again")

    mount.does(work)


def test_a_write_that_does_not_fit_says_so_itself(mounted: Mounted) -> None:
    """Where space is scarce nothing is written later, which would be too late."""
    mount = mounted("memory", size="8MiB")

    def work() -> int:
        total = 0
        with opened(mount.path / "file", os.O_CREAT | os.O_WRONLY) as fd:
            with fails(errno.ENOSPC):
                while True:
                    total += os.write(fd, b"x" * MIB)
            with fails(errno.ENOSPC):
                os.write(fd, b"x")
            os.fsync(fd)
        return total

    assert mount.does(work) == 8 * MIB


def test_truncation_and_holes_give_space_back(mounted: Mounted) -> None:
    mount = mounted("memory", size="8MiB")

    def work() -> None:
        with opened(mount.path / "file", os.O_CREAT | os.O_RDWR) as fd:
            os.ftruncate(fd, 1 << 40)
            os.pwrite(fd, b"x" * 4 * MIB, 1 << 39)
            os.fsync(fd)
            assert _free(mount.path) <= 4 * MIB
            os.ftruncate(fd, 0)
            os.fsync(fd)
            assert _free(mount.path) > 7 * MIB

    mount.does(work)


def test_the_number_of_inodes_is_limited(mounted: Mounted) -> None:
    mount = mounted("memory", inodes=50)
    makers: list[Callable[[Path], object]] = [
        make,
        os.mkdir,
        os.mkfifo,
        lambda path: os.symlink("x", path),
    ]

    def work() -> None:
        assert os.statvfs(mount.path).f_files <= 50
        made = 0
        with fails(errno.ENOSPC):
            for number in range(60):
                makers[number % 4](mount.path / str(number))
                made += 1
        assert 45 <= made <= 50
        for maker in makers:
            with fails(errno.ENOSPC):
                maker(mount.path / "one more")
        os.unlink(mount.path / "2")
        wait_until(lambda: os.statvfs(mount.path).f_ffree > 0, 5, "the kernel's FORGET")
        make(mount.path / "fits")

    mount.does(work)


def test_all_is_gone_after_an_unmount(mounted: Mounted) -> None:
    mount = mounted("memory")
    mount.does(make, mount.path / "file", b"content")
    mount.stop()
    mount.start()
    assert mount.does(os.listdir, mount.path) == []


@pytest.mark.parametrize("read_only", [False, True])
def test_the_root_belongs_to_root(mounted: Mounted, read_only: bool) -> None:
    mount = mounted("memory", read_only=read_only)
    st = mount.does(os.stat, mount.path)
    assert (st.st_uid, st.st_gid, st.st_ino, st.st_nlink) == (0, 0, 1, 2)
    if read_only:
        with fails(errno.EROFS):
            mount.does(make, mount.path / "file")
