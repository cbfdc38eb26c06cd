"""One machine for all system tests: booted, fused installed and enabled as its users would do it.

Each test gets it with all of MOUNTS serving and has to leave it like that.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from system.administrator import CONFIG, MOUNTS, SOURCES, Fused
from system.machine import Machine, booted


@pytest.fixture(scope="package")
def _running() -> Iterator[Fused]:
    with booted() as machine:
        machine.install(str(Path(__file__).parents[2]))
        machine.write("/etc/tmpfiles.d/sources.conf", SOURCES)
        machine.run("systemd-tmpfiles", "--create")
        machine.write("/etc/fused.yaml", CONFIG)
        machine.run("systemctl", "daemon-reload")
        machine.run("systemctl", "enable", "--now", "fused", timeout=90)
        yield Fused(machine)
        assert machine.failed() == set()


@pytest.fixture
def fused(_running: Fused, request: pytest.FixtureRequest) -> Iterator[Fused]:
    """fused with MOUNTS serving; afterwards they must serve again, and no unit have failed."""
    machine = _running.machine
    start = machine.output("date", "+%Y-%m-%d %H:%M:%S")
    try:
        yield _running
        assert machine.failed() == set()
        _running.wait_until_serving(*MOUNTS)
        assert _running.mounted() == {f"/mnt/{name}" for name in MOUNTS}
    except AssertionError:
        _repair(_running)
        raise
    finally:
        journal = machine.run("journalctl", "--since", start, "-o", "short-precise", timeout=20)
        request.node.add_report_section("teardown", "journal", journal.stdout[-8000:])


@pytest.fixture
def machine(fused: Fused) -> Machine:
    """The machine below."""
    return fused.machine


def _repair(fused: Fused) -> None:
    """Bring about what the next test expects, as far as possible."""
    run = fused.machine.run
    fused.configure(CONFIG)
    run("systemctl", "stop", "fused.target", "fused.service", check=False, timeout=90)
    run("systemctl", "reset-failed")
    run("sh", "-c", "rm -rf /etc/systemd/system/fused@*.d; systemctl daemon-reload")
    for mountpoint in fused.mounted():
        run("umount", "-l", mountpoint, check=False)
    run("systemctl", "start", "fused.socket", "fused.service", check=False, timeout=90)
    run("fusedctl", "mount", *MOUNTS, check=False, timeout=90)
