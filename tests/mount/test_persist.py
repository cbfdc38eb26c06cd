"""What memory promises with `persist`: all is still there, in one place, and within its limits."""

import errno
import fcntl
import json
import os
import re
import signal
import stat
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from behaviours.assertions import fails, make, opened
from fault.programs import by, live_through
from operations import Node, differences, tree
from supervised import Mount, Mounted, wait_until

MIB = 1 << 20
BLOCK = 4096


@pytest.fixture
def kept(place: Path, numbers: Iterator[int]) -> Path:
    """A place for a store, not made yet."""
    return place / f"kept{next(numbers)}" / "store"


def _loops() -> dict[str, str]:
    """The loop devices there are, with their files."""
    found = {}
    for entry in Path("/sys/block").glob("loop*/loop/backing_file"):
        found[entry.parts[3]] = entry.read_text().strip()
    return found


def _reconfigure(mount: Mount, **keys: Any) -> None:
    """Change keys of the mount's configuration (None: not given), as a reload would find them."""
    config = json.loads(mount.config.read_text())
    options = config["mounts"][mount.name]
    options.update(keys)
    config["mounts"][mount.name] = {key: v for key, v in options.items() if v is not None}
    mount.config.write_text(json.dumps(config))


def _statvfs(mount: Mount) -> tuple[int, ...]:
    """Blocks, free, available; files, free, available."""
    st = mount.does(os.statvfs, mount.path)
    assert (st.f_bsize, st.f_frsize) == (BLOCK, BLOCK)
    return st.f_blocks, st.f_bfree, st.f_bavail, st.f_files, st.f_ffree, st.f_favail


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
    before, stood = mount.does(tree, mount.path), _statvfs(mount)
    blocks = mount.does(os.stat, mount.path / "sparse").st_blocks
    assert blocks <= 16
    for _ in range(2):
        mount.stop()
        mount.start()
        assert not _changed(mount, before)
        assert _statvfs(mount) == stood
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
    assert image in map(Path, _loops().values())
    mount.stop()
    assert image not in map(Path, _loops().values()), "the loop device has gone with the mount"
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

    assert _statvfs(mount) == (blocks, blocks, blocks, 100, 99, 99)
    mount.does(work)
    mount.stop()
    mount.start()
    assert _statvfs(mount) == (blocks, blocks, blocks, 100, 99, 99)
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


def _may_resize() -> bool:
    """Whether this machine lets its root have CAP_SYS_RESOURCE; containers often do not."""
    (line,) = re.findall(r"^CapBnd:\t(\w+)", Path("/proc/self/status").read_text(), re.M)
    return bool(int(line, 16) >> 24 & 1)


in_place = pytest.param(
    True,
    id="in place",
    marks=pytest.mark.skipif(not _may_resize(), reason="takes CAP_SYS_RESOURCE"),
)


@pytest.mark.parametrize("in_place", [in_place, pytest.param(False, id="mounted afresh")])
def test_limits_can_grow_and_shrink(mounted: Mounted, kept: Path, in_place: bool) -> None:
    mount = mounted("memory", size="8MiB", inodes=50, persist=str(kept))
    mount.does(make, mount.path / "file", b"x" * 5 * MIB)

    def change(**keys: Any) -> None:
        _reconfigure(mount, **keys)
        if in_place:
            mount.restart()
        else:
            mount.stop()
            mount.start()

    # Over groups of blocks, in small steps, and so far that ext4 has to change its layout.
    for size in (9, 10, 200, 201, 1000, 300, 6):
        change(size=f"{size}MiB")
        blocks = size * MIB // BLOCK
        assert _statvfs(mount)[:3] == (blocks, *[blocks - 5 * MIB // BLOCK] * 2), size
    change(size="20MiB", inodes=60)
    assert _statvfs(mount)[3:] == (60, 58, 58)
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
        _reconfigure(mount, **keys)
        mount.stop()
        (kept / "store.ext4.new").write_bytes(b"left by a power cut")
        mount.start()
        assert not _changed(mount, before)
        assert os.listdir(kept) == ["store.ext4"]
        assert len([file for file in _loops().values() if file.startswith(str(kept))]) == 1
    assert _statvfs(mount)[0] == 64 * MIB // BLOCK
    assert _statvfs(mount)[3] == 20_000


def test_limits_below_what_is_in_use_are_refused(mounted: Mounted, kept: Path) -> None:
    mount = mounted("memory", size="8MiB", inodes=50, persist=str(kept))
    mount.does(make, mount.path / "file", b"x" * 5 * MIB)
    mount.announce("size or inodes are less than the mount holds: the former limits stay")
    stood = _statvfs(mount)
    for keys in ({"size": "4MiB", "inodes": 60}, {"size": "6MiB", "inodes": 1}):
        _reconfigure(mount, **keys)
        mount.restart()
        assert _statvfs(mount) == stood
    # What is mounted afresh has no former limits: nothing comes in until there is room for it.
    _reconfigure(mount, size="4MiB", inodes=1)
    mount.stop()
    mount.start()
    with fails(errno.ENOSPC):
        mount.does(make, mount.path / "other")
    blocks, free, available, files, *rest = _statvfs(mount)
    assert (free, available, rest) == (0, 0, [0, 0])
    assert (blocks, files) == (5 * MIB // BLOCK, 2), "what is in use is within what there is"
    mount.does(os.truncate, mount.path / "file", 3 * MIB)
    _reconfigure(mount, size="4MiB", inodes=3)
    mount.restart()
    assert _statvfs(mount) == (1024, 256, 256, 3, 1, 1)


def test_more_inodes_than_the_store_was_made_for_are_told(mounted: Mounted, kept: Path) -> None:
    mount = mounted("memory", size="8MiB", inodes=50, persist=str(kept))
    mount.announce("until the store is mounted afresh")
    _reconfigure(mount, inodes=100_000)
    mount.restart()
    assert 50 <= _statvfs(mount)[3] < 10_000
    assert "'inodes' is " in mount.log.read_text()
    mount.stop()
    mount.start()
    assert _statvfs(mount)[3] == 100_000


def test_a_changed_place_waits_for_an_unmount(mounted: Mounted, kept: Path) -> None:
    mount = mounted("memory", size="8MiB", persist=str(kept))
    mount.does(make, mount.path / "file", b"content")
    mount.announce("'persist' has changed")
    _reconfigure(mount, persist=None)
    mount.restart()
    assert mount.does(os.listdir, mount.path) == ["file"]
    mount.stop()
    mount.start()
    assert mount.does(os.listdir, mount.path) == []


# -- what cannot be ----------------------------------------------------------------------------


def _refused(place: Path, name: str, **keys: Any) -> str:
    """What a worker says that cannot start."""
    mount = Mount(place / name, "memory", **keys)
    try:
        mount.begin()
        assert mount.wait(20) == 1
        return mount.log.read_text()
    finally:
        mount._clean()


@contextmanager
def _only(free: int, place: Path) -> Iterator[None]:
    """A disk of its own on `place`, with so many bytes."""
    place.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={free}", "tmpfs", place], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", place], check=True)


def test_a_second_mount_on_the_same_store_is_refused(
    mounted: Mounted, place: Path, kept: Path, numbers: Iterator[int]
) -> None:
    first = mounted("memory", size="8MiB", persist=str(kept))
    first.does(make, first.path / "file", b"content")
    said = _refused(place, f"second{next(numbers)}", persist=str(kept))
    assert f"cannot use {kept}/store.ext4: it is in use by process" in said
    assert f"{first.pid} (" in said
    assert f"worker {first.name}" in said
    assert first.does(os.listdir, first.path) == ["file"]
    first.stop()
    second = mounted("memory", size="8MiB", persist=str(kept))
    assert second.does(os.listdir, second.path) == ["file"]


def test_a_former_mount_that_is_still_ending_is_waited_for(mounted: Mounted, kept: Path) -> None:
    mount = mounted("memory", size="8MiB", persist=str(kept))
    mount.stop()
    image = os.open(kept / "store.ext4", os.O_RDWR)
    fcntl.flock(image, fcntl.LOCK_EX)
    mount.begin()
    with pytest.raises(AssertionError):
        wait_until(mount._ready.is_set, 1, "ready")
    os.close(image)
    wait_until(mount._ready.is_set, 10, "ready")


def test_a_store_on_a_strange_loop_device_is_refused(
    mounted: Mounted, place: Path, kept: Path, numbers: Iterator[int]
) -> None:
    mounted("memory", size="8MiB", persist=str(kept)).stop()
    image = kept / "store.ext4"
    device = subprocess.check_output(["losetup", "-f", "--show", image], text=True).strip()
    try:
        said = _refused(place, f"refused{next(numbers)}", persist=str(kept))
    finally:
        subprocess.run(["losetup", "-d", device], check=True)
    assert f"the loop device {Path(device).name} is made of it" in said


def test_a_damaged_store_is_told_with_the_way_out(
    mounted: Mounted, place: Path, kept: Path, numbers: Iterator[int]
) -> None:
    mount = mounted("memory", size="8MiB", persist=str(kept))
    mount.does(make, mount.path / "file", b"content")
    mount.stop()
    image = kept / "store.ext4"
    with opened(image, os.O_RDWR) as fd:
        os.pwrite(fd, bytes(100), 1024 + 56)
    said = _refused(place, f"refused{next(numbers)}", size="8MiB", persist=str(kept))
    assert f"cannot mount the store {image}: " in said
    assert f"'e2fsck -f {image}'" in said
    assert image not in map(Path, _loops().values())
    # e2fsck finds the copy of what was overwritten.
    repaired = subprocess.run(["e2fsck", "-fy", image], capture_output=True, text=True)
    if repaired.returncode < 4:
        mount.start()
        assert mount.does((mount.path / "file").read_bytes) == b"content"


def test_too_little_room_on_disk_is_told_and_leaves_nothing(
    place: Path, kept: Path, numbers: Iterator[int]
) -> None:
    with _only(32 * MIB, kept):
        said = _refused(place, f"refused{next(numbers)}", size="64MiB", persist=str(kept))
        assert "cannot provide 7" in said
        assert "its disk has 32 MiB for it; make room there, or give less as 'size'" in said
        assert os.listdir(kept) == []


def test_a_store_that_cannot_grow_keeps_its_former_limits(mounted: Mounted, kept: Path) -> None:
    with _only(32 * MIB, kept):
        mount = mounted("memory", size="8MiB", inodes=50, persist=str(kept))
        mount.announce("the store cannot grow")
        _reconfigure(mount, size="64MiB")
        mount.restart()
        assert _statvfs(mount)[:2] == (2048, 2048)
        mount.does(make, mount.path / "file", b"content")
        mount.stop()
        mount.start()
        blocks, free, *_ = _statvfs(mount)
        assert blocks >= 2048
        assert blocks - free == 1
        mount.stop()


def test_half_a_store_is_made_anew(mounted: Mounted, kept: Path) -> None:
    kept.mkdir(parents=True)
    (kept / "store.ext4.new").write_bytes(os.urandom(10 * MIB))
    mount = mounted("memory", size="8MiB", inodes=50, persist=str(kept))
    assert mount.does(os.listdir, mount.path) == []
    assert os.listdir(kept) == ["store.ext4"]


def test_no_mkfs_is_told_with_the_way_out(
    place: Path,
    kept: Path,
    numbers: Iterator[int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "sh").symlink_to("/bin/sh")  # which starts workers here
    monkeypatch.setenv("PATH", str(tmp_path))
    said = _refused(place, f"refused{next(numbers)}", size="8MiB", persist=str(kept))
    assert "there is no mkfs.ext4; install it, on Debian and Ubuntu with 'apt install" in said
    assert os.listdir(kept) == []
