"""A Debian with systemd as PID 1, booted from this machine's own root file system.

An overlay with its upper half on a tmpfs lies over `/`, and systemd-nspawn boots what it shows.
All live in mount and PID namespaces and in cgroups of their own, which end with the process that
made them: whatever happens to the tests, nothing of the machine runs on or stays mounted.
"""

import contextlib
import os
import shlex
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import IO

LAUNCH = """
set -e
mount -t tmpfs -o mode=755 machine "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" overlay "$1/root"
mkdir -p /run/systemd/nspawn
mount -t tmpfs -o mode=755 nspawn /run/systemd/nspawn
while
    systemd-nspawn --directory="$1/root" --boot --machine=fused-test \\
        --quiet --register=no --keep-unit --private-network --link-journal=no --bind=/dev/fuse \\
        --console=read-only --system-call-filter=open_by_handle_at
    [ $? = 133 ]  # the machine wants to be rebooted
do :; done
"""
CONTROLLERS = ("memory", "devices")
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
    "SYSTEMD_PAGER": "cat",
    "SYSTEMD_COLORS": "0",
}


class Machine:
    """The running machine.  Every command has a limit, inside as well as outside."""

    def __init__(self, unshare: int, root: str) -> None:
        self._unshare = unshare
        self._root = root
        self._expected: set[str] = set()

    def run(
        self, *argv: str, timeout: float = 30, check: bool = True, stdin: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside; AssertionError with its output if `check` and it failed."""
        done = subprocess.run(
            [*self._enter(), "timeout", "-s", "KILL", str(timeout), *argv],
            input=stdin,
            capture_output=True,
            text=True,
            errors="surrogateescape",
            env=ENVIRONMENT,
            timeout=timeout + 10,
        )
        if check and done.returncode:
            raise AssertionError(
                f"{shlex.join(argv)}: status {done.returncode}\n{done.stdout}{done.stderr}"
            )
        return done

    def output(self, *argv: str, timeout: float = 30) -> str:
        """What a command that succeeds prints, without the white space around it."""
        return self.run(*argv, timeout=timeout).stdout.strip()

    @contextlib.contextmanager
    def process(self, *argv: str) -> Iterator[subprocess.Popen[str]]:
        """A command running inside, with pipes to its stdin and stdout, killed at the end."""
        # nsenter forks to enter the PID namespace: the one to kill is its child.
        inner = ["setpriv", "--pdeathsig", "KILL", *argv]
        with subprocess.Popen(
            [*self._enter(), *inner],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=ENVIRONMENT,
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def write(self, path: str, text: str) -> None:
        """Make `path` a file with this text inside, and its directory if need be."""
        self.run("mkdir", "-p", os.path.dirname(path))
        self.run("dd", "status=none", f"of={path}", stdin=text)

    def show(self, unit: str, name: str) -> str:
        """A unit's property."""
        return self.output("systemctl", "show", "--value", "-p", name, unit)

    def failed(self) -> set[str]:
        """Units that failed, less those which fail on this machine without us."""
        lines = self.output("systemctl", "list-units", "--failed", "--plain", "--no-legend")
        return {line.split()[0] for line in lines.splitlines()} - self._expected

    def install(self, source: str) -> None:
        """Install the clone at `source` and do what a package's scripts would do then."""
        make = ["make", "-C", source, "install", f"DESTDIR={self._root}"]
        done = subprocess.run(
            ["nsenter", "-t", str(_child(self._unshare)), "-m", "-p", "--", *make],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout
        self.run("systemd-sysusers")
        self.run("systemd-tmpfiles", "--create")

    def reboot(self) -> None:
        """Shut the machine down in good order and return when it has come up again."""
        before = self._leader()
        self.run("systemctl", "reboot", check=False)
        wait_until(lambda: self._leader() not in (None, before), 60, "the machine to go down")
        self.wait_for_boot()

    def wait_for_boot(self) -> None:
        """Return when the machine is up."""
        wait_until(lambda: self._state() in ("running", "degraded"), 90, "the machine to boot")
        self._own_controllers()

    def learn_failures(self) -> None:
        """Take the units that have failed by now as none of our business."""
        self._expected = self.failed()

    def _state(self) -> str:
        if self._leader() is None:
            return "off"
        return self.run("systemctl", "is-system-running", check=False).stdout.strip()

    def _own_controllers(self) -> None:
        # nspawn shows cgroup v1 controllers read-only: MemoryMax= and DeviceAllow= would be void.
        for name in CONTROLLERS:
            remount = ["mount", "-o", "remount,bind,rw", f"/sys/fs/cgroup/{name}"]
            self.run(*remount, check=False)
        self.run("systemctl", "daemon-reexec")

    def _leader(self) -> int | None:
        pid: int | None = self._unshare
        for _ in ("sh", "nspawn", "systemd"):
            pid = pid and _child(pid)
        return pid

    def _enter(self) -> list[str]:
        leader = self._leader()
        assert leader, "the machine is off"
        return ["nsenter", "-t", str(leader), "-m", "-u", "-i", "-n", "-p", "--"]


def _child(pid: int) -> int | None:
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            children = file.read().split()
    except OSError:
        return None
    return int(children[0]) if children else None


def wait_until(condition: Callable[[], object], seconds: float, what: str) -> None:
    """Return when `condition` holds; AssertionError if it does not within `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.1)


@contextlib.contextmanager
def booted() -> Iterator[Machine]:
    """A machine that is up, and gone at the end."""
    with (
        tempfile.TemporaryDirectory(prefix="fused-machine-") as base,
        tempfile.TemporaryFile("w+") as console,
        _cgroups(f"fused-test-{os.getpid()}") as cgroups,
        _unshare(base, console, cgroups) as unshare,
    ):
        machine = Machine(unshare.pid, f"{base}/root")
        try:
            machine.wait_for_boot()
        except AssertionError as error:
            console.seek(0)
            raise AssertionError(f"{error}\n{console.read()}") from None
        machine.learn_failures()
        yield machine
        machine.run("systemctl", "poweroff", check=False)
        with contextlib.suppress(subprocess.TimeoutExpired):
            unshare.wait(60)


@contextlib.contextmanager
def _unshare(base: str, console: IO[str], cgroups: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    join = "".join(f'echo 0 > "{path}/cgroup.procs"\n' for path in cgroups)
    namespaces = ["--mount", "--propagation=private", "--pid", "--mount-proc", "--fork"]
    with subprocess.Popen(
        [
            *("setpriv", "--pdeathsig=KILL", "unshare", *namespaces, "--kill-child=KILL"),
            *("sh", "-c", join + LAUNCH, "sh", base),
        ],
        stdin=subprocess.DEVNULL,
        stdout=console,
        stderr=subprocess.STDOUT,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@contextlib.contextmanager
def _cgroups(name: str) -> Iterator[list[str]]:
    """A cgroup of our own in systemd's hierarchies and those of CONTROLLERS."""
    paths = []
    with open("/proc/self/mountinfo") as file:
        for line in file:
            fields, _, rest = line.partition(" - ")
            kind, _, options = rest.split()[:3]
            wanted = {"name=systemd", *CONTROLLERS} & set(options.split(","))
            if kind == "cgroup2" or (kind == "cgroup" and wanted):
                paths.append(os.path.join(fields.split()[4], name))
    for path in paths:
        os.mkdir(path)
    try:
        yield paths
    finally:
        wait_until(lambda: all(map(_remove_cgroup, paths)), 10, "the machine's cgroups to empty")


def _remove_cgroup(path: str) -> bool:
    for directory, _, _ in os.walk(path, topdown=False):
        try:
            os.rmdir(directory)
        except OSError:
            return False
    return True
