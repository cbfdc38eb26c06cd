"""What passthrough owes to its source, and what changes in the source do to it."""

import errno
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from behaviours.assertions import fails, make, opened
from supervised import Mount, Mounted, wait_until

from fused.ledger.reader import Reader


@pytest.fixture
def source(place: Path, numbers: Iterator[int]) -> Path:
    """An empty directory to show."""
    directory = place / f"shown{next(numbers)}"
    directory.mkdir()
    return directory


@pytest.fixture
def mirror(mounted: Mounted, source: Path) -> Mount:
    """The directory, shown."""
    return mounted("passthrough", source=str(source), cache="shared")


@contextmanager
def _filled(directory: Path, *options: str) -> Iterator[None]:
    """A tmpfs on `directory` for the time of the block."""
    subprocess.run(["mount", "-t", "tmpfs", *options, "tmpfs", directory], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", directory], check=True)


def _within_a_second(mount: Mount, condition: Callable[[], bool]) -> None:
    def watch() -> None:
        deadline = time.monotonic() + 1.5
        while not condition():
            assert time.monotonic() < deadline, "the change did not show up"
            time.sleep(0.01)

    mount.does(watch)


def _descriptors(mount: Mount) -> int:
    return len(os.listdir(f"/proc/{mount.pid}/fd"))


def _known(mount: Mount) -> int:
    with Reader(str(mount.runtime / mount.name / "ledger")) as reader:
        return reader.header().known


def test_attributes_are_those_of_the_source(mirror: Mount, source: Path) -> None:
    make(source / "file", b"x" * 10_000, 0o640)
    os.utime(source / "file", ns=(10**18 + 1, 10**18 + 2))
    os.link(source / "file", source / "link")
    os.mkfifo(source / "fifo")
    (source / "directory").mkdir()
    os.setxattr(source / "file", "user.x", b"1")
    fields = "st_ino st_mode st_nlink st_uid st_gid st_size st_blocks st_blksize st_rdev"
    for name in os.listdir(source):
        shown, real = mirror.does(os.lstat, mirror.path / name), os.lstat(source / name)
        for field in (*fields.split(), "st_mtime_ns", "st_ctime_ns"):
            assert getattr(shown, field) == getattr(real, field), f"{field} of {name}"
    assert mirror.does(os.getxattr, mirror.path / "file", "user.x") == b"1"


def test_what_is_written_is_in_the_source(mirror: Mount, source: Path) -> None:
    mirror.does(make, mirror.path / "\udcff", b"content", 0o4711)
    assert (source / "\udcff").read_bytes() == b"content"
    assert os.stat(source / "\udcff").st_mode & 0o7777 == 0o4711
    mirror.does(os.rename, mirror.path / "\udcff", mirror.path / "renamed")
    assert os.listdir(source) == ["renamed"]


def test_changes_in_the_source_show_up_within_a_second(mirror: Mount, source: Path) -> None:
    shown = mirror.path
    assert mirror.does(os.listdir, shown) == []
    make(source / "file", b"one")
    _within_a_second(mirror, lambda: (shown / "file").read_bytes() == b"one")
    (source / "file").write_bytes(b"two and more")
    _within_a_second(mirror, lambda: os.stat(shown / "file").st_size == 12)
    _within_a_second(mirror, lambda: (shown / "file").read_bytes() == b"two and more")
    os.chmod(source / "file", 0o600)
    _within_a_second(mirror, lambda: os.stat(shown / "file").st_mode & 0o777 == 0o600)
    os.rename(source / "file", source / "renamed")
    _within_a_second(mirror, lambda: os.listdir(shown) == ["renamed"])
    _within_a_second(mirror, lambda: not (shown / "file").exists())
    os.unlink(source / "renamed")
    _within_a_second(mirror, lambda: not (shown / "renamed").exists())


def test_content_is_never_stale_after_opening(mirror: Mount, source: Path) -> None:
    def read() -> bytes:
        return (mirror.path / "file").read_bytes()

    for number in range(100):
        (source / "file").write_bytes(b"%05d" % number)
        assert mirror.does(read) == b"%05d" % number


def test_a_replaced_file_is_another_file(mirror: Mount, source: Path) -> None:
    """ext4 gives the number of a removed file to the next one."""

    def read() -> bytes:
        return (mirror.path / "file").read_bytes()

    make(source / "file", b"old")
    assert mirror.does(read) == b"old"
    for number in range(5):
        os.unlink(source / "file")
        make(source / "file", b"new%d" % number)
        wait_until(lambda n=number: mirror.does(read) == b"new%d" % n, 1.5, "the new file")


def _numbers_come_again(root: Path) -> bool:
    """Whether new files get the numbers of removed ones, unlike on a tmpfs."""
    make(root / "old", b"")
    number = os.stat(root / "old").st_ino
    os.unlink(root / "old")
    make(root / "new", b"")
    again = os.stat(root / "new").st_ino == number
    os.unlink(root / "new")
    return again


def _reuse_a_number(root: Path) -> bool:
    """Have a new file get the number of one that is known still."""
    make(root / "old", b"old")
    number = os.stat(root / "old").st_ino
    time.sleep(0.1)  # closing is done in the background
    with opened(root / "old", os.O_PATH) as fd:
        os.unlink(root / "old")
        for i in range(1000):  # so many that the worker has let go of the old one
            make(root / f"new{i}", b"new")
            if os.stat(root / f"new{i}").st_ino == number:
                assert (root / f"new{i}").read_bytes() == b"new"
                with fails(errno.EIO, errno.ESTALE):
                    os.fstat(fd)
                return True
            if i < 500:
                os.unlink(root / f"new{i}")
    return False


def test_a_number_that_only_this_mount_gave_away_is_another_file(
    mounted: Mounted, source: Path
) -> None:
    """With `cache: exclusive` what is known is not looked into again, unless it was unlinked."""
    mount = mounted("passthrough", source=str(source), cache="exclusive")
    assert mount.does(_reuse_a_number, mount.path) == _numbers_come_again(source)


def test_open_files_follow_renames_in_the_source(mirror: Mount, source: Path) -> None:
    (source / "a" / "b").mkdir(parents=True)
    make(source / "a" / "b" / "file", b"content")

    def work() -> None:
        with (
            opened(mirror.path / "a" / "b" / "file", os.O_RDWR) as fd,
            opened(mirror.path / "a" / "b") as directory,
        ):
            os.rename(source / "a", source / "moved")
            os.rename(source / "moved" / "b" / "file", source / "elsewhere")
            assert os.pread(fd, 10, 0) == b"content"
            os.pwrite(fd, b"CON", 0)
            os.fchmod(fd, 0o600)
            os.ftruncate(fd, 5)
            os.setxattr(fd, "user.x", b"1")
            os.close(os.open("new", os.O_CREAT | os.O_WRONLY, dir_fd=directory))

    mirror.does(work)
    assert (source / "elsewhere").read_bytes() == b"CONte"
    assert os.getxattr(source / "elsewhere", "user.x") == b"1"
    assert os.listdir(source / "moved" / "b") == ["new"]


def test_open_files_outlive_their_removal_from_the_source(mirror: Mount, source: Path) -> None:
    make(source / "file", b"content")

    def work() -> None:
        with opened(mirror.path / "file", os.O_RDWR) as fd:
            os.unlink(source / "file")
            assert os.pread(fd, 10, 0) == b"content"
            os.ftruncate(fd, 3)
            assert os.fstat(fd).st_size == 3

    mirror.does(work)


def test_symlinks_do_not_lead_outside(mirror: Mount, source: Path, place: Path) -> None:
    """A directory that is known is swapped for a symlink to a place outside."""
    outside = place / "outside"
    outside.mkdir(exist_ok=True)
    (outside / "secret").write_bytes(b"secret")
    for number in range(10):
        inner = source / f"inner{number}"
        inner.mkdir()
        make(inner / "file", b"inside")
        mirror.does(os.stat, mirror.path / inner.name / "file")

        def work(inner: Path) -> None:
            with opened(mirror.path / inner.name) as fd:
                os.rename(inner, source / f"away-{inner.name}")
                os.symlink(outside, inner)
                with fails(errno.ENOENT):
                    os.open("secret", os.O_RDONLY, dir_fd=fd)
                os.close(os.open("made", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
                os.chmod("file", 0o600, dir_fd=fd)
                os.unlink("file", dir_fd=fd)

        mirror.does(work, inner)
        assert os.listdir(source / f"away-inner{number}") == ["made"]
    assert os.listdir(outside) == ["secret"]


def test_a_symlink_is_not_followed_by_the_worker(mirror: Mount, source: Path) -> None:
    os.symlink("/etc/hostname", source / "link")
    assert mirror.does(os.readlink, mirror.path / "link") == "/etc/hostname"
    before = os.stat("/etc/hostname")
    mirror.does(lambda: os.lchown(mirror.path / "link", 1, 2))
    mirror.does(lambda: os.utime(mirror.path / "link", ns=(1, 2), follow_symlinks=False))
    assert os.stat("/etc/hostname") == before
    assert os.lstat(source / "link").st_uid == 1


def test_file_systems_mounted_in_the_source_are_shown(mounted: Mounted, source: Path) -> None:
    for name in ("one", "two"):
        (source / name).mkdir()
    with _filled(source / "one"), _filled(source / "two"):
        for name in ("one", "two"):
            for number in range(50):
                make(source / name / str(number), f"{name} {number}".encode())
        mount = mounted("passthrough", source=str(source), cache="shared")

        def work() -> None:
            numbers = set()
            for name in ("one", "two"):
                for number in range(50):
                    path = mount.path / name / str(number)
                    assert path.read_text() == f"{name} {number}"
                    numbers.add(os.stat(path).st_ino)
                make(mount.path / name / "new", name.encode())
            assert len(numbers) == 100, "files of two file systems share a number"
            with fails(errno.EXDEV):
                os.rename(mount.path / "one" / "new", mount.path / "two" / "renamed")
            with fails(errno.EXDEV):
                os.link(mount.path / "one" / "new", mount.path / "link")

        mount.does(work)
        assert (source / "two" / "new").read_bytes() == b"two"
        mount.stop()


def test_a_read_only_source_is_read_only(mounted: Mounted, source: Path) -> None:
    make(source / "file", b"content")
    subprocess.run(["mount", "--bind", source, source], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", source], check=True)
        mount = mounted("passthrough", source=str(source), cache="shared")

        def work() -> None:
            assert (mount.path / "file").read_bytes() == b"content"
            for call in (
                lambda: make(mount.path / "new"),
                lambda: os.mkdir(mount.path / "new"),
                lambda: os.unlink(mount.path / "file"),
                lambda: os.chmod(mount.path / "file", 0o600),
                lambda: os.truncate(mount.path / "file", 0),
                lambda: os.open(mount.path / "file", os.O_WRONLY),
                lambda: os.rename(mount.path / "file", mount.path / "new"),
            ):
                with fails(errno.EROFS):
                    call()

        mount.does(work)
        mount.stop()
    finally:
        subprocess.run(["umount", source], check=True)


def test_a_full_source_is_full(mounted: Mounted, source: Path) -> None:
    with _filled(source, "-o", "size=1m"):
        mount = mounted("passthrough", source=str(source), cache="shared")

        def work() -> None:
            with (
                opened(mount.path / "file", os.O_CREAT | os.O_WRONLY) as fd,
                fails(errno.ENOSPC),
            ):
                for _ in range(100):
                    os.write(fd, b"x" * 100_000)
                    os.fsync(fd)
            os.unlink(mount.path / "file")
            make(mount.path / "again", b"x" * 500_000)

        mount.does(work)
        mount.stop()


def test_a_walk_keeps_no_descriptors_and_is_forgotten(mirror: Mount, source: Path) -> None:
    for directory in range(30):
        (source / str(directory)).mkdir()
        for number in range(100):
            make(source / str(directory) / str(number))
    before = _descriptors(mirror)

    def walk() -> int:
        return sum(
            os.stat(os.path.join(directory, name)).st_nlink
            for directory, _, names in os.walk(mirror.path)
            for name in names
        )

    assert mirror.does(walk) == 3000
    assert _descriptors(mirror) <= before + 200
    assert _known(mirror) == 3031
    Path("/proc/sys/vm/drop_caches").write_text("2")
    wait_until(lambda: _known(mirror) == 1, 10, "the kernel to forget")
