"""What cannot be resumed is aborted, detached and mounted afresh, and says why; nobody hangs."""

import errno
import os
import random
import re
import signal
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from behaviours.assertions import fails
from forked import in_child
from managed import Managed
from supervised import Mount, Mounted, wait_until

from fault.programs import Making, live_through
from fused import mountinfo
from fused.errors import LedgerDamaged
from fused.ledger import layout as at
from fused.ledger.reader import Reader
from fused.worker.connection import HAS_RESEND

TESTS = Path(__file__).parent.parent
FRAIL = "fault.frail:Frail"
LOST = (errno.ENOTCONN, errno.ECONNABORTED)
SEEDS = 50
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
    has_no_resend: r"the kernel cannot deliver requests again \(Linux 6.9 can\)",
}


@pytest.mark.parametrize("spoil", REASONS, ids=lambda spoil: spoil.__name__)
def test_a_mount_that_cannot_be_resumed_is_made_afresh(
    mounted: Mounted, gates: Path, spoil: Callable[[Path], object]
) -> None:
    mount = mounted(FRAIL, python_path=(TESTS,), gates=str(gates))
    mount.announce(AFRESH + REASONS[spoil])
    mount.does((mount.path / "file").write_bytes, b"content")
    (gates / "gate").touch()
    with Making(mount.path / "gate") as made:
        wait_until(lambda: working(mount), 5, "the request is under way")
        mount.kill()
        spoil(mount.runtime / mount.name / "ledger")
        mount.start()
        with pytest.raises(OSError) as lost:
            made.result(10)
        assert lost.value.errno in LOST
    only_one_is_mounted(mount)
    says_why(mount, REASONS[spoil])


def says_why(mount: Mount, reason: str) -> None:
    assert re.search(f"is made afresh: {reason}", mount.log.read_text())
    with Reader(str(mount.runtime / mount.name / "ledger")) as ledger:
        header = ledger.header()
    assert (header.state, header.restarts) == ("serving", 0)
    assert re.match(f"made afresh: {reason}", header.last_error)


def working(mount: Mount) -> bool:
    with Reader(str(mount.runtime / mount.name / "ledger")) as ledger:
        return bool(ledger.in_progress())


def test_damage_that_is_found_late_ends_the_mount_as_well(mounted: Mounted) -> None:
    mount = mounted("memory")
    damage = "the ledger's record of inode [0-9]+ is damaged"
    mount.announce(AFRESH, damage)
    mount.does((mount.path / "file").write_bytes, b"content")
    mount.kill()
    has_a_damaged_name(mount.runtime / mount.name / "ledger")
    mount.resume()
    with fails(*LOST):
        mount.does((mount.path / "file").read_bytes)
    assert mount.wait() == 1
    mount.start()
    assert re.search(f"fused: {damage}", mount.log.read_text())
    only_one_is_mounted(mount)


def mounts_at(path: Path) -> list[mountinfo.Mount]:
    return [one for one in mountinfo.mounts() if one.mountpoint == str(path)]


def only_one_is_mounted(mount: Mount) -> None:
    assert len(mounts_at(mount.path)) == 1
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

    def program(root: Path) -> None:
        fd = os.open(root / "file", os.O_CREAT | os.O_RDWR)
        os.write(fd, b"content")
        os.fsync(fd)
        os.kill(worker, signal.SIGKILL)
        with fails(*LOST):
            while True:
                os.fstat(fd)
                os.fsync(fd)

    worker = mount.pid
    mount.announce("is made afresh")
    mount.does(program, mount.path)
    mount.wait()
    mount.start()
    only_one_is_mounted(mount)
    says_why(mount, "'on_crash' is 'remount'")
    assert mount.does((mount.path / "file").read_bytes) == b"content"


def test_a_type_without_restore(mounted: Mounted) -> None:
    mount = mounted("misbehaving:Misbehaving", python_path=(TESTS / "mount",))
    mount.announce("unexpected exception", "^Traceback", "is made afresh")
    for _ in range(2):
        mount.kill()
        mount.start()
        assert len(mounts_at(mount.path)) == 1
        assert mount.does(os.listdir, mount.path) == []
        says_why(mount, "type 'misbehaving:Misbehaving' cannot restore what its worker knew")


# -- flipped bits ---------------------------------------------------------------------------------


def flip(ledger: Path, seed: int) -> None:
    """Flip some of the bits that a successor may read."""
    chance, words = random.Random(seed), Words(ledger)
    parts = [
        (0, at.ERROR_TEXT),
        (at.SLOTS_AT, at.SLOTS * at.SLOT_WORDS),
        (at.HANDLES_AT, words[at.HANDLE_ROWS] * at.HANDLE_WORDS),
        (at.INODES_AT, words[at.INODE_ROWS] * at.INODE_WORDS),
    ]
    for _ in range(chance.choice([1, 1, 2, 8, 100])):
        start, length = chance.choice([part for part in parts if part[1]])
        words[start + chance.randrange(length)] ^= 1 << chance.randrange(64)


def uses_files(root: Path) -> Iterator[None]:
    """What is open has its content or is lost; what has a name has its content, or none yet."""
    paths = [root / f"file{number}" for number in range(20)]
    for number, path in enumerate(paths):
        path.write_bytes(b"content %d" % number)
    os.mkdir(root / ("directory" + "x" * 200))
    for _ in range(SEEDS):
        for path in paths:
            path.stat()
        fds = [os.open(path, os.O_RDWR) for path in paths[:5]]
        yield
        for number, fd in enumerate(fds):
            with suppress(OSError):
                assert os.pread(fd, 99, 0) == b"content %d" % number
            with suppress(OSError):
                os.close(fd)
        wait_until(lambda: all_is_there(paths), 10, "all files are there")


def all_is_there(paths: list[Path]) -> bool:
    """With the right content; an error is none when a mount is given up and made afresh."""
    try:
        for number, path in enumerate(paths):
            assert path.read_bytes() == b"content %d" % number
    except OSError as error:
        assert error.errno in (*LOST, errno.ENOENT)
        return False
    return True


def readable(ledger: Path) -> None:
    """Whatever the ledger holds, a manager that reads it gets an answer or LedgerDamaged."""
    with suppress(LedgerDamaged), Reader(str(ledger)) as reader:
        assert reader.header().state
        for _ in (*reader.inodes(), *reader.operations(), *reader.in_progress()):
            pass


@pytest.mark.timeout(180)
def test_flipped_bits_never_crash_and_never_lie(mounted: Mounted, tmp_path: Path) -> None:
    mount = mounted("passthrough", source=str(tmp_path))
    mount.announce(AFRESH, "was resumed")
    seeds, resumed = iter(range(SEEDS)), []

    def die(mount: Mount) -> None:
        resumed.append("was resumed" in last_line(mount))
        mount.kill()
        flip(mount.runtime / mount.name / "ledger", next(seeds))
        readable(mount.runtime / mount.name / "ledger")

    assert live_through(mount, [die], uses_files, mount.path) == SEEDS
    assert "Traceback" not in mount.log.read_text()
    assert len(mounts_at(mount.path)) == 1
    assert 5 < sum(resumed) < SEEDS - 5, resumed


def last_line(mount: Mount) -> str:
    return mount.log.read_text().splitlines()[-1]


# -- under a manager ------------------------------------------------------------------------------


def test_a_manager_says_why_a_mount_was_made_afresh(place: Path, gates: Path) -> None:
    keys = {"type": FRAIL, "gates": str(gates)}
    with Managed(place / "managed-afresh", frail=keys) as managed:
        (gates / "gate").touch()
        with Making(managed.at("frail") / "gate") as made, fails(*LOST):
            ledger = managed.runtime_dir / "frail" / "ledger"
            wait_until(lambda: managed.status("frail")["oldestRequest"], 10, "it is under way")
            worker = managed.status("frail")["pid"]
            is_newer(ledger)
            os.kill(worker, signal.SIGKILL)
            made.result(20)
        wait_until(lambda: managed.status("frail")["pid"] not in (None, worker), 10, "the next")
        managed.reaches("frail", "serving")
        log = (managed.runtime_dir / "frail" / "log").read_text()
        assert "made afresh: the ledger's format is of another version" in log
        assert "another version" in managed.status("frail")["lastError"]
        assert len(mounts_at(managed.at("frail"))) == 1
        assert in_child(os.listdir, managed.at("frail"), limit=10) == []


@pytest.mark.timeout(180)
def test_a_worker_that_dies_too_often_is_given_up_and_its_mount_detached(
    place: Path, gates: Path
) -> None:
    keys = {"type": FRAIL, "gates": str(gates)}
    with Managed(place / "managed-hopeless", frail=keys) as managed:
        (gates / "gate").touch()
        (gates / "restore").touch()
        with Making(managed.at("frail") / "gate") as made, fails(*LOST):
            wait_until(lambda: managed.status("frail")["oldestRequest"], 10, "it is under way")
            os.kill(managed.status("frail")["pid"], signal.SIGKILL)
            managed.reaches("frail", "recovering")
            managed.reaches("frail", "failed", limit=90)
            made.result(20)
        wait_until(lambda: not mounts_at(managed.at("frail")), 10, "it is detached")
        assert "SIGKILL" in managed.status("frail")["lastError"]
        assert "given up" in managed.printed()
        (gates / "restore").unlink()
        (gates / "gate").unlink()
        managed.ctl("mount", "frail")
        managed.reaches("frail", "serving")
