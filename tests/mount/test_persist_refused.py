"""What a persistent memory mount says when it cannot be."""

import fcntl
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from behaviours.assertions import make, opened
from stores import loops, reconfigure, statvfs
from supervised import Mount, Mounted, wait_until

MIB = 1 << 20


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
    assert image not in map(Path, loops().values())
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
        mount.announce(
            "the store cannot grow", "the store grows to .size. when it is mounted afresh"
        )
        reconfigure(mount, size="64MiB")
        mount.restart()
        assert statvfs(mount)[:2] == (2048, 2048)
        mount.does(make, mount.path / "file", b"content")
        mount.stop()
        mount.start()
        blocks, free, *_ = statvfs(mount)
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
