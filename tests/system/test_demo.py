"""`make run`, as somebody who has just cloned fused uses it: in a terminal, ended by Ctrl-C."""

import contextlib
import os
import pty
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MOUNTPOINTS = {str(ROOT / "run/mnt" / name) for name in ("hello", "scratch", "mirror")}


class Terminal:
    """`make run` in a terminal of its own."""

    def __init__(self, pid: int, fd: int) -> None:
        self.pid = pid
        self.fd = fd
        self.text = ""

    def read_until(self, condition: Callable[[], bool], seconds: float) -> None:
        """Take what is printed until `condition` holds."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, self.text
            if select.select([self.fd], [], [], 0.1)[0]:
                with contextlib.suppress(OSError):  # nobody is there any more
                    self.text += os.read(self.fd, 65536).decode(errors="replace")

    def exit_status(self, seconds: float) -> int:
        """What `make run` ends with."""
        found: list[int] = []

        def ended() -> bool:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                found.append(os.waitstatus_to_exitcode(status))
            return bool(found)

        self.read_until(ended, seconds)
        self.pid = 0
        return found[0]


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    pid, fd = pty.fork()
    if pid == 0:
        os.chdir(ROOT)
        os.execvp("make", ["make", "run"])
    terminal = Terminal(pid, fd)
    try:
        yield terminal
    finally:
        if terminal.pid:
            os.kill(terminal.pid, signal.SIGTERM)
            terminal.exit_status(60)
        os.close(fd)


def mounted() -> set[str]:
    """Mountpoints of the demo that are mounted."""
    with open("/proc/self/mountinfo") as file:
        return {line.split()[4] for line in file} & MOUNTPOINTS


@pytest.mark.parametrize("how", ["Ctrl-C", "SIGINT", "SIGTERM"])
def test_make_run_serves_until_it_is_ended_and_ends_well(terminal: Terminal, how: str) -> None:
    terminal.read_until(lambda: terminal.text.count("serving") >= 3, 30)
    assert mounted() == MOUNTPOINTS
    for path in MOUNTPOINTS:
        subprocess.run(["ls", "-l", path], check=True, timeout=10, stdout=subprocess.DEVNULL)
    if how == "Ctrl-C":
        os.write(terminal.fd, b"\x03")
    else:
        os.kill(terminal.pid, signal.Signals[how])
    assert terminal.exit_status(30) == 0, terminal.text
    assert mounted() == set()
    assert "Traceback" not in terminal.text
