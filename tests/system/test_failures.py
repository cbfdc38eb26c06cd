"""What goes wrong in a year: the manager dies, a file system is broken, a worker dies for good."""

import pytest

from system.administrator import CONFIG, Fused
from system.machine import wait_until

pytestmark = pytest.mark.timeout(300)

CRASHING = """\
import os
import llfuse


class Crashing(llfuse.Operations):
    def __init__(self):
        super().__init__()
        if os.path.exists("/run/crash"):
            os._exit(3)

    def getattr(self, inode, ctx):
        entry = llfuse.EntryAttributes()
        entry.st_ino = inode
        entry.st_mode = 0o40755
        return entry

    def lookup(self, parent, name, ctx):
        raise llfuse.FUSEError(2)

    def statfs(self, ctx):
        return llfuse.StatvfsData()
"""
BROKEN = "  broken:\n    type: crashing:Crashing\n    mountpoint: /mnt/broken\n"


def test_restarting_the_manager_leaves_every_worker_as_it_was(fused: Fused) -> None:
    before = fused.pids()
    fused.machine.run("systemctl", "restart", "fused", timeout=90)
    assert fused.pids() == before
    assert all(fused.status(name)["restarts"] == 0 for name in ("plain",))


def test_killing_the_manager_leaves_every_worker_as_it_was(fused: Fused) -> None:
    before = fused.pids()
    manager = fused.machine.show("fused.service", "MainPID")
    fused.machine.run("kill", "-9", manager)
    wait_until(
        lambda: fused.machine.show("fused.service", "MainPID") not in ("0", manager),
        20,
        "systemd to restart the manager",
    )
    assert fused.ctl("status", "--check")[0] == 0
    assert fused.pids() == before


def test_mounts_start_and_stop_without_the_manager(fused: Fused) -> None:
    run = fused.machine.run
    before = fused.pids()
    run("systemctl", "stop", "fused.socket", "fused.service")
    assert fused.pids() == before
    assert fused.ctl("status", check=False)[0] == 3
    run("systemctl", "start", "fused@later")
    assert fused.machine.output("cat", "/mnt/later/message") == "at last"
    run("systemctl", "restart", "fused@mirror")
    run("systemctl", "stop", "fused@later")
    assert "/mnt/later" not in fused.mounted()
    run("systemctl", "stop", "fused@hello")
    run("systemctl", "start", "fused.service", timeout=90)
    # It was stopped on purpose: a manager that starts does not know better.
    assert fused.state("hello") == "inactive"
    run("systemctl", "start", "fused@hello")


def test_a_worker_that_keeps_dying_is_given_up_and_can_be_recovered(fused: Fused) -> None:
    machine = fused.machine
    site = machine.output(
        "/usr/local/lib/fused/venv/bin/python",
        "-c",
        "import sysconfig; print(sysconfig.get_path('purelib'))",
    )
    machine.write(f"{site}/crashing.py", CRASHING)
    before = fused.pids()
    machine.run("touch", "/run/crash")
    fused.configure(CONFIG + BROKEN)
    machine.run("systemctl", "reload", "fused", check=False, timeout=90)
    wait_until(lambda: fused.status("broken")["state"] == "failed", 60, "'broken' to be given up")
    assert fused.status("broken")["lastError"]
    assert fused.ctl("status", "--check", check=False)[0] == 1
    assert machine.failed() == {"fused@broken.service"}
    assert "/mnt/broken" not in fused.mounted()
    assert fused.pids() == before
    machine.run("rm", "/run/crash")
    fused.ctl("mount", "broken")
    assert fused.status("broken")["state"] == "serving"
    assert fused.ctl("status", "--check")[0] == 0
    fused.configure(CONFIG)
    machine.run("systemctl", "reload", "fused")
    wait_until(lambda: "/mnt/broken" not in fused.mounted(), 30, "'broken' to be unmounted")


def kill_until_failed(fused: Fused, name: str) -> None:
    """Kill a mount's workers, each as soon as it is there, until systemd gives up."""
    kill = ("systemctl", "kill", "--signal=KILL", f"fused@{name}")

    def failed() -> bool:
        fused.machine.run(*kill, check=False)
        return fused.state(name) == "failed"

    wait_until(failed, 60, "the start limit to be hit")


def test_a_mount_given_up_is_detached_and_can_be_mounted_again(fused: Fused) -> None:
    kill_until_failed(fused, "mirror")
    wait_until(lambda: "/mnt/mirror" not in fused.mounted(), 20, "the dead mount to be detached")
    assert fused.status("mirror")["state"] == "failed"
    fused.ctl("mount", "mirror")
    assert fused.machine.run("ls", "/mnt/mirror").returncode == 0


def test_a_mount_given_up_without_the_manager_can_be_started_again(fused: Fused) -> None:
    run = fused.machine.run
    run("systemctl", "stop", "fused.socket", "fused.service")
    kill_until_failed(fused, "mirror")
    run("systemctl", "reset-failed", "fused@mirror")
    run("systemctl", "start", "fused@mirror")
    places = [line.split()[4] for line in run("cat", "/proc/1/mountinfo").stdout.splitlines()]
    assert places.count("/mnt/mirror") == 1
    run("ls", "/mnt/mirror")
    run("systemctl", "start", "fused.service", timeout=90)
