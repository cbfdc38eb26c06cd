"""Programs that go on working on a mount while its workers die, and ways to die."""

import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import cycle
from pathlib import Path
from typing import Any

from forked import in_child
from supervised import Mount

Death = Callable[[Mount], None]
Program = Callable[..., Iterator[None]]


def by(number: signal.Signals) -> Death:
    """Death by a signal."""

    def die(mount: Mount) -> None:
        mount.announce(r"Fatal Python error: (Segmentation fault|Aborted)")
        assert mount.kill(number) == (0 if number == signal.SIGUSR2 else -number)

    die.__name__ = number.name
    return die


DEATHS = [by(signal.Signals[f"SIG{name}"]) for name in ("KILL", "SEGV", "ABRT", "USR2")]


def live_through(mount: Mount, deaths: Sequence[Death], program: Program, *arguments: Any) -> int:
    """Run a generator function in a child.  At each `yield` the worker dies, and the program goes
    on at once, while the successor starts; returns how often.  A worker that ends at another time
    has a successor, too.  Raises what the program raises."""
    parent, child = socket.socketpair()

    def run() -> None:
        parent.close()
        for _ in program(*arguments):
            child.send(b"!")
            child.recv(1)

    died, causes = 0, cycle(deaths)
    with ThreadPoolExecutor(1) as pool, parent, child:
        work = pool.submit(in_child, run, limit=150.0, rescue=mount.abort)
        try:
            while not work.done():
                if select.select([parent], [], [], 0.01)[0]:
                    parent.recv(1)
                    next(causes)(mount)
                    died += 1
                    parent.send(b"!")
                    mount.resume()
                elif not mount.alive():
                    mount.resume()
        except BaseException:
            mount.abort()
            parent.shutdown(socket.SHUT_RDWR)
            raise
        work.result()
    return died


MKDIR = """
import os, sys
try:
    os.mkdir(sys.argv[1])
except OSError as error:
    print(error.errno)
"""


class Making:
    """A mkdir(2) in another process.  A context manager; the process is killed if it is stuck."""

    def __init__(self, path: Path) -> None:
        command = [sys.executable, "-S", "-c", MKDIR, str(path)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> "Making":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        with suppress(subprocess.TimeoutExpired):
            self._process.communicate(timeout=5)

    def done(self) -> bool:
        """Whether it has an answer."""
        return self._process.poll() is not None

    def result(self, limit: float = 20.0) -> None:
        """Wait for the answer; OSError when it is an error."""
        said, _ = self._process.communicate(timeout=limit)
        assert self._process.returncode == 0
        if said:
            raise OSError(int(said), os.strerror(int(said)))
