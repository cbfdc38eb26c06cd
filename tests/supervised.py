"""A worker with a supervisor: what systemd or the local launcher does for it, in one small class.

The supervisor hears READY=1 and STATUS=, keeps the descriptors that the worker stores, and hands
them to the successor.  So a test may end a worker in any way and start the next one.
"""

import array
import json
import os
import re
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from forked import Result, in_child

from fused import mountinfo

REPOSITORY = Path(__file__).resolve().parent.parent
COMPLAINT = re.compile(r"\b(WARNING|ERROR|CRITICAL)\b|^Traceback|^<[0-4]>|^Fatal Python", re.M)
STORED = 100  # descriptors are kept from this number on, clear of those that are passed


def wait_until(condition: Callable[[], Any], limit: float, what: str) -> None:
    """Return once `condition()` is true; AssertionError naming `what` after `limit` seconds."""
    deadline = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < deadline, f"not within {limit:g} s: {what}"
        time.sleep(0.002)


Mounted = Callable[..., "Mount"]


class Mount:
    """One mount served by real workers, one after the other.  A context manager: whatever happened
    in it, no mount, process or descriptor is left."""

    def __init__(
        self, directory: Path, type_name: str, *, python_path: tuple[Path, ...] = (), **keys: Any
    ) -> None:
        self.directory, self.name = directory, "under-test"
        self.path, self.runtime, self.log = (directory / name for name in ("mnt", "run", "log"))
        self.python_path = (REPOSITORY, *python_path)
        self.pid = 0
        self.statuses: list[str] = []
        self.stored: dict[str, int] = {}
        self._ready, self._heard = threading.Event(), threading.Event()
        self._watchdog, self._fed = 0.0, 0.0  # seconds, zero for none; when it was fed last
        self._announced: list[str] = []
        self._read = 0
        directory.mkdir(mode=0o755)
        config = {"type": type_name, "mountpoint": str(self.path), "stop_timeout": "2s"} | keys
        self.config = directory / "fused.yaml"
        self.config.write_text(json.dumps({"mounts": {self.name: config}}))
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(directory / "notify"))
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def __enter__(self) -> "Mount":
        try:
            self.start()
        except BaseException:
            self._clean()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        try:
            if self.pid and kind is None:
                self.stop()
        finally:
            self._clean()
        if kind is None:
            assert not (text := self.complaints()), f"the worker complained:\n{text}"

    def start(self, limit: float = 15.0) -> None:
        """Start a worker, a successor when descriptors are stored, and wait for READY=1."""
        self.begin()
        wait_until(
            lambda: self._ready.is_set() or not self.alive(), limit, f"READY\n{self._log_text()}"
        )
        assert self._ready.is_set(), f"the worker did not start:\n{self._log_text()}"

    def begin(self) -> None:
        """Start a worker, and do not wait for it."""
        self._ready.clear()
        self._hear_all()
        self._watchdog = 0.0
        self.pid = self._spawn()

    def kill(self, number: int = signal.SIGKILL, limit: float = 10.0) -> int:
        """Send a signal and wait for the worker's end; returns its exit code (-N for signal N)."""
        os.kill(self.pid, number)
        return self.wait(limit)

    def wait(self, limit: float = 10.0) -> int:
        """Wait for the worker's end; returns its exit code (-N for signal N)."""
        pid, self._code = self.pid, 0
        wait_until(lambda: not self.alive(), limit, f"the end of worker {pid}\n{self._log_text()}")
        return self._code

    def resume(self) -> None:
        """Start the successor of a worker that died."""
        self.announce("the mount was resumed")
        self.start()

    def restart(self) -> None:
        """Hand over to a successor."""
        assert self.kill(signal.SIGUSR2) == 0
        self.resume()

    def stop(self, limit: float = 10.0) -> None:
        """Unmount; the worker must agree that all is well, and nothing may stay mounted."""
        code = self.kill(signal.SIGTERM, limit)
        self._drop_stored()
        assert code == 0, f"exit status {code}\n{self._log_text()}"
        assert mountinfo.at(str(self.path)) is None, "still mounted after a stop"

    def alive(self) -> bool:
        """Whether the worker runs; reaps it when it ended."""
        if not self.pid:
            return False
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if pid:
            self.pid, self._code = 0, os.waitstatus_to_exitcode(status)
        return not pid

    def does(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """What `function(*arguments)`, which touches the mount, returns or raises in a child."""
        return in_child(function, *arguments, rescue=self.abort)

    def abort(self) -> None:
        """Abort the connection, so that nobody hangs on it: what a test does when all is lost."""
        mount = mountinfo.at(str(self.path))
        if mount is not None:
            mountinfo.abort(mount.minor)
            with suppress(OSError, AssertionError):
                in_child(mountinfo.umount, str(self.path), 1, limit=5)  # MNT_FORCE

    def complaints(self) -> str:
        """What the log says since the last call, if there is a complaint in it that was not
        announced; else nothing."""
        with open(self.log, errors="replace") as file:
            file.seek(self._read)
            text, self._read = file.read(), file.tell()
        lines = [
            line
            for line in text.splitlines()
            if COMPLAINT.search(line) and not any(re.search(p, line) for p in self._announced)
        ]
        return text if lines else ""

    def announce(self, *patterns: str) -> None:
        """Lines of the log that match one of these are no complaints."""
        self._announced += patterns

    def _log_text(self) -> str:
        return self.log.read_text(errors="replace")[-4000:] if self.log.exists() else ""

    def _spawn(self) -> int:
        for name in [name for name, fd in self.stored.items() if _hung_up(fd)]:
            os.close(self.stored.pop(name))
        environment = dict(
            os.environ,
            NOTIFY_SOCKET=str(self.directory / "notify"),
            LISTEN_FDS=str(len(self.stored)),
            LISTEN_FDNAMES=":".join(self.stored),
            PYTHONPATH=":".join(map(str, self.python_path)),
            PYTHONDONTWRITEBYTECODE="1",
        )
        worker = [sys.executable, "-m", "fused", "worker", self.name]
        worker += ["--config", str(self.config), "--runtime-dir", str(self.runtime)]
        shell = ["sh", "-c", 'export LISTEN_PID=$$; exec "$@"', "worker", *worker]
        setpriv = shutil.which("setpriv") or "/usr/bin/setpriv"
        log = os.open(self.log, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o644)
        passed = [(os.POSIX_SPAWN_DUP2, fd, 3 + i) for i, fd in enumerate(self.stored.values())]
        try:
            return os.posix_spawn(
                setpriv,
                ["setpriv", "--pdeathsig", "TERM", *shell],
                environment,
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, log, 1),
                    (os.POSIX_SPAWN_DUP2, log, 2),
                    *passed,
                ],
            )
        finally:
            os.close(log)

    def _hear_all(self) -> None:
        """Wait until everything that a dead worker said is heard."""
        self._heard.clear()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"HEARD?", str(self.directory / "notify"))
        assert self._heard.wait(5)

    def _listen(self) -> None:
        self._socket.settimeout(0.1)
        while True:
            if self._watchdog and time.monotonic() > self._fed + self._watchdog:
                self._bite()
            try:
                data, ancillary, _, _ = self._socket.recvmsg(8192, socket.CMSG_SPACE(4 * 16))
            except TimeoutError:
                continue
            if data == b"END":
                return
            if data == b"HEARD?":
                self._heard.set()
                continue
            self._hear(data.decode(), _descriptors(ancillary))

    def _hear(self, text: str, fds: list[int]) -> None:
        said = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
        name = said.get("FDNAME", "stored")
        if "FDSTORE" in said:
            for fd in fds:
                self._forget(name)
                self.stored[name] = _moved_up(fd)
        elif "FDSTOREREMOVE" in said:
            self._forget(name)
        if "STATUS" in said:
            self.statuses.append(said["STATUS"])
        if said.get("READY") == "1":
            self._ready.set()
        self._fed = time.monotonic()
        self._watchdog = float(said.get("WATCHDOG_USEC", self._watchdog * 1e6)) / 1e6
        if said.get("WATCHDOG") == "trigger":
            self._bite()

    def _bite(self) -> None:
        """What systemd does when a watchdog expires or is triggered."""
        self._watchdog = 0.0
        if pid := self.pid:
            os.kill(pid, signal.SIGABRT)

    def _forget(self, name: str) -> None:
        if name in self.stored:
            os.close(self.stored.pop(name))

    def _drop_stored(self) -> None:
        for name in list(self.stored):
            self._forget(name)

    def _clean(self) -> None:
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
        abandon(self.directory)
        with suppress(AssertionError):
            wait_until(lambda: not self.alive(), 5, "the end")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"END", str(self.directory / "notify"))
        self._listener.join(5)
        self._socket.close()
        self._drop_stored()


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    fds = array.array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    return list(fds)


def _moved_up(fd: int) -> int:
    import fcntl

    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, STORED)
    finally:
        os.close(fd)


def _hung_up(fd: int) -> bool:
    import select

    poll = select.poll()
    poll.register(fd, 0)
    return bool(poll.poll(0))


def _mounts_below(directory: Path) -> list[mountinfo.Mount]:
    return [m for m in mountinfo.mounts() if m.mountpoint.startswith(f"{directory}/")]


def leftovers(directory: Path) -> list[str]:
    """Mounts below `directory`, loop devices of files there, and workers that serve there."""
    left = [f"{mount.fs_type} on {mount.mountpoint}" for mount in _mounts_below(directory)]
    for entry in Path("/sys/block").glob("loop*/loop/backing_file"):
        with suppress(OSError):
            if (file := entry.read_text()).startswith(f"{directory}/"):
                left.append(f"{entry.parts[3]} of {file.strip()}")
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
            if "worker" in words and any(word.startswith(f"{directory}/") for word in words):
                left.append(f"process {process.name}: {' '.join(words)}")
    return left


def abandon(directory: Path) -> None:
    """Abort and detach whatever is mounted below `directory`."""
    for mount in reversed(_mounts_below(directory)):
        mountinfo.abort(mount.minor)
        if mount.fs_type.startswith("fuse"):
            with suppress(OSError, AssertionError):
                in_child(mountinfo.umount, mount.mountpoint, 1, limit=5)  # MNT_FORCE
        with suppress(OSError):
            mountinfo.detach(mount.mountpoint)
