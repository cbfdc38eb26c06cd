"""What memory promises with `persist`: all is still there, in one place, and within its limits."""

import errno
import os
import signal
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from behaviours.assertions import fails, make, opened
from fault.programs import by, live_through
from operations import Node, differences, tree
from stores import BLOCK, loops, reconfigure, statvfs
from supervised import Mount, Mounted, wait_until

MIB = 1 << 20


def _fill(path: Path, limit: int = 200 * MIB) -> int:
    """Write until nothing goes in any more, in ever smaller pieces; the bytes that went in."""
    total, piece = 0, 1 * MIB
    with opened(path, os.O_CREAT | os.O_WRONLY) as fd:
        while piece >= BLOCK and total < limit:
            try:
                count = os.pwrite(fd, b"x" * piece, total)
                os.fsync(fd)
                total += count
            except OSError as error:
                assert error.errno == errno.ENOSPC, error
                os.ftruncate(fd, total)
                piece //= 2
    return total


def _plant(root: Path) -> None:
    """Some of everything, most of it not synced."""
    os.umask(0)
    (root / "directory").mkdir(mode=0o2775)
    (root / "directory" / "below").mkdir(mode=0o700)
    os.chown(root / "directory", 60001, 60002)
    make(root / "file", b"content" * 1000)
    os.chmod(root / "file", 0o4751)
    os.chown(root / "file", 60001, 60002)
    os.chmod(root / "file", 0o4751)
    os.utime(root / "file", ns=(10**18 + 1, 10**18 + 123_456_789))
    os.setxattr(root / "file", "user.x", b"value")
    os.setxattr(root / "directory", "trusted.y", b"\0\xff" * 500)
    os.link(root / "file", root / "directory" / "below" / "linked")
    os.symlink("directory/below", root / "link")
    os.mkfifo(root / "fifo", 0o640)
    os.mknod(root / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    make(root / os.fsdecode(b"\xff" + b"n" * 254), b"")
    with opened(root / "sparse", os.O_CREAT | os.O_RDWR) as fd:
        os.pwrite(fd, b"end", 1 << 35)
        os.ftruncate(fd, 3)
        os.pwrite(fd, b"middle", MIB)
        os.ftruncate(fd, 2 * MIB)
    for number in range(300):
        (root / "directory" / f"{number}").write_bytes(b"%d" % number)


def test_everything_survives_an_unmount(mounted: Mounted, kept: Path) -> None:
    mount = mounted("memory", size="64MiB", inodes=5000, persist=str(kept))
    mount.does(_plant, mount.path)
    before, stood = mount.does(tree, mount.path), statvfs(mount)
    blocks = mount.does(os.stat, mount.path / "sparse").st_blocks
    assert blocks <= 16
    for _ in range(2):
        mount.stop()
        mount.start()
        assert not _changed(mount, before)
        assert statvfs(mount) == stood
        assert mount.does(os.stat, mount.path / "sparse").st_blocks == blocks
    root = mount.does(os.stat, mount.path)
    assert (root.st_uid, root.st_gid, root.st_ino) == (0, 0, 1)


def _changed(mount: Mount, before: dict[str, Node]) -> list[str]:
    """What is not as it was.  The time of a write is the kernel's first and its WRITE's later."""
    return differences(mount.does(tree, mount.path), before, 10**18 + 10**9, False)


def _nameless(root: Path) -> Iterator[None]:
    """Keep a file open that has no name, while its mount has a new worker."""
    with opened(root / "unlinked", os.O_CREAT | os.O_RDWR) as fd:
        os.write(fd, b"nameless")
        os.unlink(root / "unlinked")
        yield
        assert os.pread(fd, 100, 0) == b"nameless"
        yield
        os.ftruncate(fd, 4)
        assert os.pread(fd, 100, 0) == b"name"


def test_everything_survives_the_death_of_its_worker(mounted: Mounted, kept: Path) -> None:
    mount = mounted("memory", size="64MiB", persist=str(kept))
    mount.does(_plant, mount.path)
    before = mount.does(tree, mount.path)
    live_through(mount, [by(signal.SIGKILL), by(signal.SIGUSR2)], _nameless, mount.path)
    assert not _changed(mount, before)
    mount.stop()
    mount.start()
    assert not _changed(mount, before)


def test_what_is_unmounted_is_complete_on_disk(mounted: Mounted, kept: Path) -> None:
    mount = mounted("memory", size="64MiB", persist=str(kept))
    mount.does(_plant, mount.path)
    image = kept / "store.ext4"
    assert image in map(Path, loops().values())
    mount.stop()
    assert image not in map(Path, loops().values()), "the loop device has gone with the mount"
    checked = subprocess.run(["e2fsck", "-fn", image], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout
    assert os.listdir(kept) == ["store.ext4"]


def test_the_store_is_for_root_and_has_all_its_space_at_once(mounted: Mounted, kept: Path) -> None:
    mounted("memory", size="64MiB", persist=str(kept))
    assert stat.S_IMODE(kept.stat().st_mode) == 0o700
    st = (kept / "store.ext4").stat()
    assert stat.S_IMODE(st.st_mode) == 0o600
    assert 64 * MIB < st.st_size <= st.st_blocks * 512 <= 76 * MIB


@pytest.mark.parametrize("size", [1, 3 * MIB + 1, 8 * MIB, 150 * MIB])
def test_the_size_is_kept_to_the_block(mounted: Mounted, kept: Path, size: int) -> None:
    blocks = -(-size // BLOCK)
    # A file in more than four pieces, as a large one must be, takes a block to note them.
    notes = int(size > 100 * MIB)
    mount = mounted("memory", size=size, inodes=100, persist=str(kept))

    def work() -> None:
        for _ in range(2):
            written = _fill(mount.path / "file")
            assert (blocks - notes) * BLOCK <= written <= blocks * BLOCK
            st = os.statvfs(mount.path)
            assert (st.f_blocks, st.f_bfree, st.f_bavail) == (blocks, 0, 0)
            with fails(errno.ENOSPC), opened(mount.path / "other", os.O_CREAT | os.O_RDWR) as fd:
                os.write(fd, b"y")
                os.fsync(fd)
            assert os.stat(mount.path / "other").st_blocks == 0
            os.unlink(mount.path / "other")
            os.unlink(mount.path / "file")
            wait_until(lambda: os.statvfs(mount.path).f_bfree == blocks, 5, "all is free again")

    assert statvfs(mount) == (blocks, blocks, blocks, 100, 99, 99)
    mount.does(work)
    mount.stop()
    mount.start()
    assert statvfs(mount) == (blocks, blocks, blocks, 100, 99, 99)
    mount.does(work)


def test_the_number_of_inodes_is_kept_exactly(mounted: Mounted, kept: Path) -> None:
    mount = mounted("memory", size="8MiB", inodes=50, persist=str(kept))
    makers: list[Callable[[Path], object]] = [
        make,
        os.mkdir,
        os.mkfifo,
        lambda path: os.symlink("x", path),
    ]

    def work() -> None:
        for number in range(49):
            makers[number % 4](mount.path / str(number))
        st = os.statvfs(mount.path)
        assert (st.f_files, st.f_ffree, st.f_favail) == (50, 0, 0)
        for maker in makers:
            with fails(errno.ENOSPC):
                maker(mount.path / "one more")
        os.link(mount.path / "0", mount.path / "linked")
        os.unlink(mount.path / "2")
        wait_until(lambda: os.statvfs(mount.path).f_ffree > 0, 5, "the kernel's FORGET")
        make(mount.path / "fits")

    mount.does(work)
    mount.kill()
    mount.resume()
    with fails(errno.ENOSPC):
        mount.does(make, mount.path / "one more")


def test_limits_can_grow_and_shrink(mounted: Mounted, kept: Path) -> None:
    mount = mounted("memory", size="8MiB", inodes=50, persist=str(kept))
    mount.does(make, mount.path / "file", b"x" * 5 * MIB)

    def change(**keys: Any) -> None:
        reconfigure(mount, **keys)
        mount.stop()
        mount.start()

    # Over groups of blocks, in small steps, and so far that ext4 has to change its layout.
    for size in (9, 10, 200, 201, 1000, 300, 6):
        change(size=f"{size}MiB")
        blocks = size * MIB // BLOCK
        assert statvfs(mount)[:3] == (blocks, *[blocks - 5 * MIB // BLOCK] * 2), size
    change(size="20MiB", inodes=60)
    assert statvfs(mount)[3:] == (60, 58, 58)
    assert mount.does(_fill, mount.path / "more") == 15 * MIB
    assert mount.does(lambda: (mount.path / "file").read_bytes()) == b"x" * 5 * MIB
    mount.stop()
    checked = subprocess.run(["e2fsck", "-fn", kept / "store.ext4"], capture_output=True)
    assert checked.returncode == 0, checked.stdout
    st = (kept / "store.ext4").stat()
    assert st.st_size <= st.st_blocks * 512, "all space stays provided"


def test_all_is_as_it_was_in_a_store_that_has_grown(mounted: Mounted, kept: Path) -> None:
    mount = mounted("memory", size="32MiB", inodes=3000, persist=str(kept))
    mount.does(_plant, mount.path)
    before = mount.does(tree, mount.path)
    for keys in ({"size": "64MiB"}, {"inodes": 20_000}):
        reconfigure(mount, **keys)
        mount.stop()
        (kept / "store.ext4.new").write_bytes(b"left by a power cut")
        mount.start()
        assert not _changed(mount, before)
        assert os.listdir(kept) == ["store.ext4"]
        assert len([file for file in loops().values() if file.startswith(str(kept))]) == 1
    assert statvfs(mount)[0] == 64 * MIB // BLOCK
    assert statvfs(mount)[3] == 20_000


def test_limits_below_what_is_in_use_are_refused(mounted: Mounted, kept: Path) -> None:
    mount = mounted("memory", size="8MiB", inodes=50, persist=str(kept))
    mount.does(make, mount.path / "file", b"x" * 5 * MIB)
    mount.announce("size or inodes are less than the mount holds: the former limits stay")
    stood = statvfs(mount)
    for keys in ({"size": "4MiB", "inodes": 60}, {"size": "6MiB", "inodes": 1}):
        reconfigure(mount, **keys)
        mount.restart()
        assert statvfs(mount) == stood
    # What is mounted afresh has no former limits: nothing comes in until there is room for it.
    reconfigure(mount, size="4MiB", inodes=1)
    mount.stop()
    mount.start()
    with fails(errno.ENOSPC):
        mount.does(make, mount.path / "other")
    blocks, free, available, files, *rest = statvfs(mount)
    assert (free, available, rest) == (0, 0, [0, 0])
    assert (blocks, files) == (5 * MIB // BLOCK, 2), "what is in use is within what there is"
    mount.does(os.truncate, mount.path / "file", 3 * MIB)
    reconfigure(mount, size="4MiB", inodes=3)
    mount.restart()
    assert statvfs(mount) == (1024, 256, 256, 3, 1, 1)


def test_more_inodes_than_the_store_was_made_for_are_told(mounted: Mounted, kept: Path) -> None:
    mount = mounted("memory", size="8MiB", inodes=50, persist=str(kept))
    mount.announce("until the store is mounted afresh")
    reconfigure(mount, inodes=100_000)
    mount.restart()
    assert 50 <= statvfs(mount)[3] < 10_000
    assert "'inodes' is " in mount.log.read_text()
    mount.stop()
    mount.start()
    assert statvfs(mount)[3] == 100_000


def test_a_changed_place_waits_for_an_unmount(mounted: Mounted, kept: Path) -> None:
    mount = mounted("memory", size="8MiB", persist=str(kept))
    mount.does(make, mount.path / "file", b"content")
    mount.announce("'persist' has changed")
    reconfigure(mount, persist=None)
    mount.restart()
    assert mount.does(os.listdir, mount.path) == ["file"]
    mount.stop()
    mount.start()
    assert mount.does(os.listdir, mount.path) == []
