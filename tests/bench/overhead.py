"""What the interposer and the ledger cost per request: `python tests/bench/overhead.py`.

Handlers of a type that does next to nothing are called directly and through the interposer, in
turn, in one process; the kernel has no part in it.  A table of medians over rounds, microseconds a
call.
"""

import itertools
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import llfuse

from fused.ledger.writer import Ledger
from fused.worker.interposer import Interposer
from fused.worker.lanes import Lanes
from fused.worker.pace import Pace

CALLS, ROUNDS = 20_000, 15


class Trivial(llfuse.Operations):
    """Each handler returns at once.  It counts as a type that survives, which costs most."""

    def __init__(self) -> None:
        super().__init__()
        self.nodes = itertools.count(10)

    def entry(self, node: int) -> llfuse.EntryAttributes:
        entry = llfuse.EntryAttributes()
        entry.st_ino = node
        return entry

    def restore(self, inodes: Any, handles: Any) -> None:
        pass

    def key(self, inode: int) -> bytes:
        return b"a key of twenty bytes"

    def peek(self, parent: int, name: bytes) -> int:
        return 0

    def getattr(self, inode: int, ctx: Any) -> llfuse.EntryAttributes:
        return self.entry(inode)

    def lookup(self, parent: int, name: bytes, ctx: Any) -> llfuse.EntryAttributes:
        return self.entry(5)

    def mkdir(self, parent: int, name: bytes, mode: int, ctx: Any) -> llfuse.EntryAttributes:
        return self.entry(next(self.nodes))

    def unlink(self, parent: int, name: bytes, ctx: Any) -> None:
        pass

    def rename(self, old: int, name: bytes, new: int, new_name: bytes, ctx: Any) -> None:
        pass

    def forget(self, inodes: Any) -> None:
        pass

    def open(self, inode: int, flags: int, ctx: Any) -> int:
        return next(self.nodes)

    def read(self, fh: int, offset: int, size: int) -> bytes:
        return b""

    def write(self, fh: int, offset: int, data: bytes) -> int:
        return 1


CASES: dict[str, Callable[[Any, Any], Callable[[int], Any]]] = {
    "getattr": lambda fs, ctx: lambda i: fs.getattr(1, ctx),
    "read": lambda fs, ctx: lambda i: fs.read(7, 0, 4096),
    "write": lambda fs, ctx: lambda i: fs.write(7, 0, b"x"),
    "lookup, known": lambda fs, ctx: lambda i: fs.lookup(1, b"name", ctx),
    "open": lambda fs, ctx: lambda i: fs.open(5, 0, ctx),
    "mkdir (lookup, new)": lambda fs, ctx: lambda i: fs.mkdir(1, b"a name", 0, ctx),
    "forget": lambda fs, ctx: lambda i: fs.forget([(10 + i, 1)]),
    "unlink": lambda fs, ctx: lambda i: fs.unlink(1, b"name", ctx),
    "rename": lambda fs, ctx: lambda i: fs.rename(1, b"name", 1, b"other", ctx),
}


def once(call: Callable[[int], Any]) -> float:
    """Microseconds a call."""
    began = perf_counter_ns()
    for i in range(CALLS):
        call(i)
    return (perf_counter_ns() - began) / CALLS / 1000


def measure(name: str, directory: str) -> tuple[float, float]:
    """Medians, direct and through the interposer."""
    direct, through = [], []
    for number in range(ROUNDS):
        path = f"{directory}/ledger{number}"
        ledger = Ledger.create(path, 1, 0)
        fs = Trivial()
        interposer = Interposer(fs, ledger, Lanes(ledger), True, sys.exit, Pace(ledger.latest))
        if name == "forget":
            for i in range(CALLS):
                ledger.inodes.add(10 + i, b"", 1, b"name", 1)
        direct.append(once(CASES[name](fs, None)))
        through.append(once(CASES[name](interposer, None)))
        Path(path).unlink()
    return statistics.median(direct), statistics.median(through)


def main() -> None:
    """The table."""
    print(f"{'us a call':22}{'direct':>8}{'through':>9}{'overhead':>10}")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        for name in CASES:
            direct, through = measure(name, directory)
            print(f"{name:22}{direct:8.2f}{through:9.2f}{through - direct:10.2f}", flush=True)


if __name__ == "__main__":
    main()
