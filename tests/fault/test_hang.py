"""A hang is a kind of death: it is named and ended, and the request is tried again, twice."""

import errno
import os
import signal
from functools import partial
from pathlib import Path

import pytest
from behaviours.assertions import fails
from forked import in_child
from managed import Managed
from supervised import Mount, Mounted, wait_until

from fault.programs import Making
from fused.ledger.reader import Reader, Request

TESTS = Path(__file__).parent.parent
TYPE = "fault.frail:Frail"
EXPECTED = ("is stuck for", "no request was read", "Fatal Python error: Aborted", "has ended its")
WATCHDOG = 0.5  # seconds


@pytest.fixture
def mount(mounted: Mounted, gates: Path) -> Mount:
    started = mounted(TYPE, python_path=(TESTS,), gates=str(gates), watchdog=f"{WATCHDOG}s")
    started.announce(*EXPECTED)
    return started


def working_on(mount: Mount) -> list[Request]:
    with Reader(str(mount.runtime / mount.name / "ledger")) as reader:
        return reader.in_progress()


def is_stuck(mount: Mount, attempts: int = 0) -> bool:
    return ("mkdir", attempts) in [(one.operation, one.attempts) for one in working_on(mount)]


@pytest.mark.parametrize("name", ["waits", "hold"])
def test_a_stuck_handler_is_named_and_its_request_served_by_the_next_worker(
    mount: Mount, gates: Path, name: str
) -> None:
    (gates / name).touch()
    with Making(mount.path / name) as made:
        wait_until(lambda: is_stuck(mount), 5, "the ledger tells of the request")
        (request,) = working_on(mount)
        assert (request.operation, request.inode, request.attempts) == ("mkdir", 1, 0)
        assert mount.wait(10) == -signal.SIGABRT
        assert not made.done()
        (gates / name).unlink()
        mount.resume()
        made.result(5)
    assert mount.does(os.listdir, mount.path) == [name]
    log = mount.log.read_text()
    assert "frail.py" in log, "the stack of the handler"
    if name == "waits":  # else nobody in the worker can say anything
        assert "mkdir is stuck for" in log


def test_a_request_that_is_stuck_three_times_gets_eio_and_the_mount_lives_on(
    mount: Mount, gates: Path
) -> None:
    name = "gate"
    mount.does((mount.path / "file").write_bytes, b"content")
    (gates / name).touch()
    with Making(mount.path / name) as made:
        for attempt in range(3):
            wait_until(partial(is_stuck, mount, attempt), 5, f"attempt {attempt} is stuck")
            assert mount.wait(10) == -signal.SIGABRT
            mount.announce("the mount was resumed")
            if attempt < 2:
                mount.begin()
            else:
                mount.start()
        with fails(errno.EIO):
            made.result(5)
    assert mount.does((mount.path / "file").read_bytes) == b"content"
    mount.does(os.mkdir, mount.path / "other")
    assert working_on(mount) == []
    (gates / name).unlink()
    mount.does(os.mkdir, mount.path / name)
    assert "mkdir has ended its worker 3 times: it is answered EIO" in mount.log.read_text()


def test_a_manager_names_the_hang_and_has_it_ended(place: Path, gates: Path) -> None:
    keys = {"type": TYPE, "gates": str(gates), "watchdog": "3s"}
    (gates / "gate").touch()
    with Managed(place / "managed-hang", frail=keys) as managed:
        with Making(managed.at("frail") / "gate") as made:
            wait_until(lambda: "mkdir of inode 1" in managed.ctl("status").stdout, 20, "named")
            oldest = managed.status("frail")["oldestRequest"]
            assert (oldest["operation"], oldest["inode"], oldest["attempts"]) == ("mkdir", 1, 0)
            assert 1 < oldest["age"] < 5
            managed.reaches("frail", "recovering")
            assert not made.done()
            (gates / "gate").unlink()
            made.result(20)
        managed.reaches("frail", "serving")
        status = managed.status("frail")
        assert (status["restarts"], status["oldestRequest"]) == (1, None)
        assert "mkdir is stuck for" in status["lastError"]
        assert "triggered its watchdog" in managed.printed()
        log = (managed.runtime_dir / "frail" / "log").read_text()
        assert "frail.py" in log
        assert "took over after" in log


def test_a_manager_gives_a_poisonous_request_up_and_not_the_mount(
    place: Path, gates: Path
) -> None:
    keys = {"type": TYPE, "gates": str(gates), "watchdog": "1s"}
    (gates / "gate").touch()
    with Managed(place / "managed-poison", frail=keys) as managed:
        with Making(managed.at("frail") / "gate") as made, fails(errno.EIO):
            made.result(30)
        managed.reaches("frail", "serving")
        assert managed.status("frail")["restarts"] == 3
        in_child(os.mkdir, managed.at("frail") / "other", limit=10)
