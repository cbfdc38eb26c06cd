"""How long a takeover makes programs wait, beside the bare start of an interpreter with llfuse.

`python -m fault.stall [--rounds N] [KNOWN …]` with tests/ on the path.  For each number of known
inodes a worker is killed N times; measured is the time from the kill to the answer of a lookup
that was asked for in that moment.  In turn with that, `python -c 'import llfuse'` is timed.
"""

import argparse
import compileall
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import NamedTuple

from forked import in_child
from supervised import REPOSITORY, Mount

from fused.ledger.reader import Reader

BARE = [sys.executable, "-c", "import llfuse"]
MANY = 10_000  # files in one directory
LIMIT = 3600.0  # seconds for a client


class Stall(NamedTuple):
    """What one number of known inodes gave, in seconds."""

    known: int
    takeovers: list[float]
    bare: list[float]


def fill(source: Path, known: int) -> None:
    """Make so many files, in directories of MANY."""
    for first in range(0, known, MANY):
        directory = source / str(first)
        directory.mkdir()
        for number in range(first, min(known, first + MANY)):
            os.mknod(directory / f"{number}.txt")


def client(root: str, known: int, asked: socket.socket) -> None:
    """Know all files, then look a name up whenever asked to, and tell when the answer came."""
    for number in range(known):
        os.stat(f"{root}/{number // MANY * MANY}/{number}.txt")
    asked.send(b"ready")
    while number_ := asked.recv(20):
        try:
            os.stat(f"{root}/missing{int(number_)}")
        except FileNotFoundError:
            asked.send(repr(time.monotonic()).encode())


def measure(place: Path, known: int, rounds: int) -> Stall:
    """Kill the worker of a mount with so many known inodes, again and again."""
    (place / "source").mkdir()
    fill(place / "source", known)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    result = Stall(known, [], [])
    with (
        Mount(place / "mount", "passthrough", source=str(place / "source")) as mount,
        ThreadPoolExecutor(1) as pool,
        ours,
    ):
        mount.announce("was resumed")
        work: Callable[[], None] = lambda: client(str(mount.path), known, theirs)  # noqa: E731
        work_done = pool.submit(in_child, work, limit=LIMIT, rescue=mount.abort)
        try:
            assert ours.recv(20) == b"ready"
            with Reader(str(mount.runtime / mount.name / "ledger")) as ledger:
                assert ledger.header().known > known
            for number in range(rounds):
                result.takeovers.append(takeover(mount, ours, number))
                began = time.monotonic()
                subprocess.run(BARE, check=True)
                result.bare.append(time.monotonic() - began)
        finally:
            ours.send(b"")
            ours.shutdown(socket.SHUT_RDWR)
        work_done.result(10)
    return result


def takeover(mount: Mount, asked: socket.socket, number: int) -> float:
    """From a kill to the next answer."""
    os.kill(mount.pid, signal.SIGSTOP)  # so that it is not this one who answers
    asked.send(b"%d" % number)
    time.sleep(0.01)
    began = time.monotonic()
    mount.kill()
    mount.start()
    return float(asked.recv(50)) - began


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="fault.stall", description="Measure takeovers.")
    parser.add_argument("known", type=int, nargs="*", default=[10, 10_000], help="known inodes")
    parser.add_argument("--rounds", type=int, default=50)
    given = parser.parse_args()
    compileall.compile_dir(REPOSITORY / "fused", quiet=1)
    print(f"{'known inodes':>12}{'takeover p50':>14}{'max':>8}{'bare p50':>10}{'ratio':>7}")
    for known in given.known:
        with tempfile.TemporaryDirectory(prefix="fused-stall-", dir="/var/tmp") as place:
            os.chmod(place, 0o755)
            stall = measure(Path(place), known, given.rounds)
        taken, bare = median(stall.takeovers), median(stall.bare)
        print(
            f"{known:12}{taken * 1000:11.1f} ms{max(stall.takeovers) * 1000:5.0f} ms"
            f"{bare * 1000:7.1f} ms{taken / bare:7.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
