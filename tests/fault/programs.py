"""Programs that go on working on a mount while its workers die, and ways to die."""

import os
import select
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
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
    on at once, while the successor starts; returns how often.  Raises what the program raises."""
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
        except BaseException:
            mount.abort()
            parent.shutdown(socket.SHUT_RDWR)
            raise
        work.result()
    return died


@contextmanager
def making(path: Path, rescue: Callable[[], None]) -> Iterator["Future[None]"]:
    """mkdir(2) in another process."""
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(in_child, os.mkdir, path, limit=30.0, rescue=rescue)
