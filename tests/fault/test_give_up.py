"""What cannot be resumed is aborted, detached and mounted afresh, and says why; nobody hangs."""

import errno
import os
import random
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from forked import in_child
from managed import Managed
from supervised import Mount, Mounted, wait_until

from fault.test_hang import EXPECTED, making
from fused import mountinfo
from fused.errors import LedgerDamaged
from fused.ledger import layout as at
from fused.ledger.reader import Reader
from fused.worker.connection import HAS_RESEND

TESTS = Path(__file__).parent.parent
FRAIL = "fault.frail:Frail"
LOST = (errno.ENOTCONN, errno.ECONNABORTED)
SEEDS = 60
AFRESH = "the mount cannot be resumed and is made afresh: "


# -- what can be wrong with a ledger --------------------------------------------------------------


class Words:
    """The 64-bit words of a ledger, to be spoilt."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __getitem__(self, place: int) -> int:
        with open(self._path, "rb") as file:
            found: int = struct.unpack("=Q", os.pread(file.fileno(), 8, place * 8))[0]
        return found

    def __setitem__(self, place: int, value: int) -> None:
        with open(self._path, "rb+", buffering=0) as file:
            os.pwrite(file.fileno(), struct.pack("=Q", value), place * 8)


def has_no_resend(ledger: Path) -> None:
    """As if the mount had been made under a kernel before 6.9."""
    words = Words(ledger)
    words[at.FEATURES] = words[at.FEATURES] & ~HAS_RESEND
    constants = [words[i] for i in (at.SIZE, at.STARTED_NS, at.MINOR, at.FEATURES)]
    words[at.CONSTANTS_CRC] = at.constants_crc(constants)


def is_newer(ledger: Path) -> None:
    newer = struct.unpack("=Q", struct.pack("=Q", at.FORMAT)[:6] + b"99")[0]
    Words(ledger)[at.FORMAT_WORD] = newer


def has_another_minor(ledger: Path) -> None:
    Words(ledger)[at.MINOR] ^= 1


def has_a_damaged_count(ledger: Path) -> None:
    Words(ledger)[at.INODES_AT + at.COUNT] ^= 1 << 30


def has_a_damaged_name(ledger: Path) -> None:
    Words(ledger)[at.INODES_AT + at.BLOB] ^= 1 << 3


def is_cut(ledger: Path) -> None:
    os.truncate(ledger, at.INODES_AT * 8)


def is_empty(ledger: Path) -> None:
    os.truncate(ledger, 0)


REASONS: dict[Callable[[Path], object], str] = {
    os.unlink: "its ledger is gone",
    is_newer: "the ledger's format is of another version of fused",
    is_cut: "the ledger's size is not that of this format",
    is_empty: "the ledger's size is not that of this format",
    has_another_minor: "the ledger's header is damaged",
    has_a_damaged_count: "the lookup count of inode [0-9]+ is damaged",
    has_a_damaged_name: "the ledger's record of inode [0-9]+ is damaged",
    has_no_resend: r"the kernel cannot deliver requests again \(Linux 6.9 can\)",
}


@pytest.mark.parametrize("spoil", REASONS, ids=lambda spoil: spoil.__name__)
def test_a_mount_that_cannot_be_resumed_is_made_afresh(
    mounted: Mounted, tmp_path: Path, spoil: Callable[[Path], object]
) -> None:
    mount = mounted(FRAIL, python_path=(TESTS,), gates=str(tmp_path))
    mount.announce(*EXPECTED, AFRESH + REASONS[spoil])
    mount.does((mount.path / "file").write_bytes, b"content")
    (tmp_path / "gate").touch()
    with making(mount.path / "gate", mount.abort) as made:
        wait_until(lambda: working(mount), 5, "the request is under way")
        mount.kill()
        spoil(mount.runtime / mount.name / "ledger")
        mount.start()
        with pytest.raises(OSError) as lost:
            made.result(10)
        assert lost.value.errno in LOST
    only_one_is_mounted(mount)
    assert "is made afresh" in mount.log.read_text()
    with reader(mount) as ledger:
        header = ledger.header()
        assert (header.state, header.restarts) == ("serving", 0)


def reader(mount: Mount) -> Reader:
    return Reader(str(mount.runtime / mount.name / "ledger"))


def working(mount: Mount) -> bool:
    with reader(mount) as ledger:
        return bool(ledger.in_progress())


def only_one_is_mounted(mount: Mount) -> None:
    found = [one for one in mountinfo.mounts() if one.mountpoint == str(mount.path)]
    assert len(found) == 1
    assert mount.does(os.listdir, mount.path) is not None
    mount.does(os.mkdir, mount.path / "new")


@pytest.mark.parametrize("content", ["memory", "passthrough"])
def test_content_is_there_after_a_mount_was_made_afresh(
    mounted: Mounted, tmp_path: Path, content: str
) -> None:
    options = {"source": str(tmp_path)} if content == "passthrough" else {}
    mount = mounted(content, **options)
    mount.announce(AFRESH)
    mount.does((mount.path / "file").write_bytes, b"content")
    mount.kill()
    (mount.runtime / mount.name / "ledger").unlink()
    mount.start()
    assert mount.does((mount.path / "file").read_bytes) == b"content"
    mount.kill()
    mount.resume()
    assert mount.does((mount.path / "file").read_bytes) == b"content"


def test_on_crash_remount(mounted: Mounted) -> None:
    mount = mounted("memory", on_crash="remount")
    mount.does((mount.path / "file").write_bytes, b"content")
    with mount_held(mount):
        mount.kill()
        mount.start()
        only_one_is_mounted(mount)


def test_a_type_without_restore(mounted: Mounted) -> None:
    mount = mounted("misbehaving:Misbehaving", python_path=(TESTS / "mount",))
    mount.announce("unexpected exception", "^Traceback")
    mount.kill()
    mount.start()
    found = [one for one in mountinfo.mounts() if one.mountpoint == str(mount.path)]
    assert len(found) == 1
    mount.does(os.listdir, mount.path)
