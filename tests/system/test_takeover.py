"""A mount outlives its worker: whatever ends a worker, programs notice nothing but a pause."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from system.administrator import CONFIG, MOUNTS, Fused
from system.machine import Machine, wait_until

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
# Has a deleted file open, and reads and writes it on demand.
HOLDER = r"""
import os, sys
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT | os.O_EXCL)
os.write(fd, b"before")
os.unlink(sys.argv[1])
print("ready", flush=True)
for number, _ in enumerate(sys.stdin):
    os.pwrite(fd, b"after%d" % number, 6 * (number + 1))
    print(os.pread(fd, 100, 0).decode(), os.fstat(fd).st_nlink, flush=True)
"""
PYTHON = "/usr/bin/python3"


@contextlib.contextmanager
def load(machine: Machine, path: str) -> Iterator[dict[str, Any]]:
    """A process that reads a file in full, over and over; at the end, fills in what it saw."""
    wanted = machine.output("sha256sum", path).split()[0]
    result: dict[str, Any] = {}
    with machine.process(PYTHON, "-c", READER, path, wanted) as reader:
        assert reader.stdout
        assert reader.stdout.readline() == "ready\n"
        yield result
        out, _ = reader.communicate("", timeout=60)
        result |= json.loads(out.splitlines()[-1])


def random_file(machine: Machine, path: str) -> str:
    """Make a file of one random MiB; its path."""
    machine.run("dd", "if=/dev/urandom", f"of={path}", "bs=1M", "count=1", "status=none")
    return path


def wait_for_successor(fused: Fused, name: str, pids: set[int]) -> None:
    """Return when a worker serves that is none of `pids`, which gets it, too."""
    wait_until(lambda: fused.pid(name) not in {0, *pids}, 20, "a successor")
    fused.wait_until_serving(name)
    pids.add(fused.pid(name))


@pytest.mark.parametrize("name", MOUNTS)
def test_kill_and_restart_under_load_are_not_noticed(fused: Fused, name: str) -> None:
    machine = fused.machine
    path = "/mnt/hello/message"
    if name != "hello":
        path = random_file(machine, f"/mnt/{name}/random")
    restarts = fused.status(name)["restarts"]
    with load(machine, path) as seen:
        pids = {fused.pid(name)}
        for command in (["kill", "--signal=KILL"], ["restart"], ["kill", "--signal=SEGV"]) * 2:
            machine.run("systemctl", *command, f"fused@{name}")
            wait_for_successor(fused, name, pids)
    assert seen["errors"] == 0, seen
    assert seen["reads"] > 100
    assert seen["worst"] < 5
    assert fused.status(name)["restarts"] == restarts + 6
    if name != "hello":
        machine.run("rm", path)


def test_a_worker_that_hangs_is_replaced_by_the_watchdog(fused: Fused) -> None:
    machine = fused.machine
    fused.configure(CONFIG.replace("defaults:\n", "defaults:\n  watchdog: 2s\n"))
    machine.run("systemctl", "reload", "fused")
    fused.wait_until_serving(*MOUNTS)
    path = random_file(machine, "/mnt/mirror/random")
    with load(machine, path) as seen:
        pids = {fused.pid("mirror")}
        machine.run("systemctl", "kill", "--signal=STOP", "fused@mirror")
        wait_for_successor(fused, "mirror", pids)
    assert seen["errors"] == 0, seen
    machine.run("rm", path)
    fused.configure(CONFIG)
    machine.run("systemctl", "reload", "fused")


@pytest.mark.parametrize("name", ["scratch", "mirror", "plain"])
def test_a_deleted_open_file_survives(fused: Fused, name: str) -> None:
    machine = fused.machine
    with machine.process(PYTHON, "-c", HOLDER, f"/mnt/{name}/deleted") as holder:
        assert holder.stdin
        assert holder.stdout
        assert holder.stdout.readline() == "ready\n"
        pids = {fused.pid(name)}
        content = "before"
        for number in range(3):
            machine.run("systemctl", "kill", "--signal=KILL", f"fused@{name}")
            wait_for_successor(fused, name, pids)
            holder.stdin.write("\n")
            holder.stdin.flush()
            content += f"after{number}"
            assert holder.stdout.readline() == f"{content} 0\n"
    assert machine.output("ls", f"/mnt/{name}") == ""


def test_the_content_of_a_memory_mount_outlives_workers_but_not_the_mount(fused: Fused) -> None:
    machine = fused.machine
    machine.write("/mnt/scratch/directory/file", "content")
    pids = {fused.pid("scratch")}
    machine.run("systemctl", "kill", "--signal=KILL", "fused@scratch")
    wait_for_successor(fused, "scratch", pids)
    assert machine.output("cat", "/mnt/scratch/directory/file") == "content"
    machine.run("systemctl", "stop", "fused@scratch")
    machine.run("systemctl", "start", "fused@scratch")
    assert machine.output("ls", "/mnt/scratch") == ""


def test_an_upgrade_is_not_noticed(fused: Fused) -> None:
    machine = fused.machine
    path = random_file(machine, "/mnt/mirror/random")
    before = fused.pids()
    with load(machine, path) as seen:
        machine.install(str(Path(__file__).parents[2]))
        machine.run("systemctl", "daemon-reload")
        machine.run("systemctl", "restart", "fused", "fused@*", timeout=90)
        fused.wait_until_serving(*MOUNTS)
    assert seen["errors"] == 0, seen
    assert not set(before.values()) & set(fused.pids().values())
    machine.run("rm", path)
