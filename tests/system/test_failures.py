"""What goes wrong in a year: the manager dies, a worker dies, a file system is broken."""

import json
import subprocess
from typing import Any

import pytest
from administrator import CONFIG, Fused
from machine import Machine, wait_until

pytestmark = pytest.mark.timeout(300)

READER = r"""
import hashlib, json, os, select, sys, time
path, wanted = sys.argv[1:]
reads = errors = 0
worst = 0.0
print("ready", flush=True)
while not select.select([0], [], [], 0)[0]:
    begin = time.monotonic()
    try:
        fd = os.open(path, os.O_RDONLY)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        data = b"".join(iter(lambda: os.read(fd, 1 << 17), b""))
        os.close(fd)
        errors += hashlib.sha256(data).hexdigest() != wanted
    except OSError as error:
        print(error, file=sys.stderr)
        errors += 1
    reads += 1
    worst = max(worst, time.monotonic() - begin)
print(json.dumps({"reads": reads, "errors": errors, "worst": worst}))
"""
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


def finish(process: subprocess.Popen[str]) -> dict[str, Any]:
    """What a READER has seen."""
    out, _ = process.communicate("", timeout=60)
    result: dict[str, Any] = json.loads(out.splitlines()[-1])
    return result


def file_of_megabyte(machine: Machine, path: str) -> str:
    """Make `path` one random MiB and return its SHA-256."""
    machine.run("dd", "if=/dev/urandom", f"of={path}", "bs=1M", "count=1", "status=none")
    return machine.output("sha256sum", path).split()[0]


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


@pytest.mark.parametrize("name", ["hello", "scratch", "mirror", "plain"])
def test_kill_and_restart_under_load_are_not_noticed(fused: Fused, name: str) -> None:
    machine = fused.machine
    path = f"/mnt/{name}/message" if name == "hello" else f"/mnt/{name}/random"
    if name == "hello":
        wanted = machine.output("sha256sum", path).split()[0]
    else:
        wanted = file_of_megabyte(machine, path)
    unit = f"fused@{name}.service"
    restarts = fused.status(name)["restarts"]
    with machine.process("/usr/bin/python3", "-c", READER, path, wanted) as reader:
        assert reader.stdout
        assert reader.stdout.readline() == "ready\n"
        pids = {fused.pid(name)}
        for command in (["kill", "--signal=KILL", unit], ["restart", unit]) * 3:
            machine.run("systemctl", *command)
            wait_until(lambda: fused.pid(name) not in {0, *pids}, 20, "a successor")
            fused.wait_until_serving(name)
            pids.add(fused.pid(name))
        result = finish(reader)
    assert result["errors"] == 0, result
    assert result["reads"] > 100
    assert result["worst"] < 5
    assert len(pids) == 7
    assert fused.status(name)["restarts"] == restarts + 6
    if name != "hello":
        machine.run("rm", path)
