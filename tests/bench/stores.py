"""What could hold a file system in memory: memory and time of each candidate.

`PYTHONPATH=tests python -m bench.stores` prints tables in Markdown.  Each candidate works in a
process of its own, without FUSE, as the handlers of a worker would; the candidates take turns, and
the table has medians.

Memory is what grows while a store is filled: tmpfs's pages (Shmem), the kernel's objects (Slab),
its other cached pages, and the process's own (RSS); MemFree moves by more than that, with what
each processor sets aside.  It is read at once, after the kernel has dropped unused names and
inodes (`echo 2 > /proc/sys/vm/drop_caches`), and after it has dropped clean pages, too (3).
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import native
from forked import in_child

from bench.candidates import CANDIDATES
from bench.table import machine

KIB, MIB = 1 << 10, 1 << 20
FILES = {0: 100_000, 100: 20_000, 4 * KIB: 20_000, MIB: 100}  # size of each -> how many
PARTS = ("Shmem", "Slab", "Pages", "RSS")  # the sum is what a store takes
TIMED = 10_000  # files in the directory that is worked on
CALLS = 2_000  # of each kind that is timed
A_WHILE = 600.0
Figures = dict[str, float]


def memory() -> Figures:
    """The machine's memory and this process's RSS, in bytes."""
    Path("/proc/sys/vm/stat_refresh").read_text()  # each processor's part is added up
    figures = {}
    for path in ("/proc/meminfo", "/proc/self/status"):
        for line in Path(path).read_text().splitlines():
            if line.endswith(" kB"):
                name, value, _ = line.split()
                figures[name.rstrip(":")] = float(value) * KIB
    figures["RSS"] = figures["RssAnon"]  # what is mapped is in Shmem
    figures["Pages"] = figures["Buffers"] + figures["Cached"] - figures["Shmem"]
    figures["all"] = sum(figures[part] for part in PARTS)
    return figures


def drop_caches(what: int = 3) -> None:
    """Have the kernel give up what it can: unused names and inodes (2), clean pages (1)."""
    os.sync()
    for _ in range(2):  # what went the first time lets go of more
        Path("/proc/sys/vm/drop_caches").write_text(str(what))
    time.sleep(0.2)


def name_of(number: int) -> bytes:
    """The name of a file, of 16 bytes."""
    return b"file-%011d" % number


def fill(candidate: str, size: int) -> Figures:
    """Bytes of memory per file beside its content."""
    content, count = os.urandom(size), FILES[size]
    store = CANDIDATES[candidate]()
    try:
        for number in range(1000):
            store.make(b"first-%010d" % number, b"")  # so that SQLite's log has its size
        names = [name_of(number) for number in range(count)]
        drop_caches()
        before = memory()
        for name in names:
            store.make(name, content)
        held = memory()
        drop_caches(2)
        slim = memory()
        drop_caches()
        least = memory()
    finally:
        store.close()
    what = {"held": held, "slim": slim, "least": least}
    figures = {key: (then["all"] - before["all"]) / count - size for key, then in what.items()}
    figures |= {part: (least[part] - before[part]) / count for part in PARTS}
    figures["MemAvailable"] = (before["MemAvailable"] - least["MemAvailable"]) / count
    return figures


def timed(work: Callable[[int], object], numbers: list[int]) -> float:
    """Microseconds that `work` takes for one of the numbers."""
    began = time.perf_counter()
    for number in numbers:
        work(number)
    return (time.perf_counter() - began) / len(numbers) * 1e6


def speed(candidate: str) -> Figures:
    """Microseconds a call."""
    store, content = CANDIDATES[candidate](), os.urandom(4 * KIB)
    everything, some = list(range(TIMED)), list(range(0, TIMED, TIMED // CALLS))
    names = [name_of(number) for number in everything]
    others = [b"other" + name[5:] for name in names]
    result: Figures = {}
    try:
        result["create + write 4 KiB"] = timed(lambda i: store.make(names[i], content), everything)
        result["a successor to 10,000"] = timed(lambda _: store.succeed(), [0])
        drop_caches()
        result["lookup, cold"] = timed(lambda i: store.look(names[i]), some)
        result["lookup, warm"] = timed(lambda i: store.look(names[i]), some * 3)
        handles = {i: store.open(names[i]) for i in some[:500]}
        numbers = list(handles) * 8
        result["read 4 KiB"] = timed(lambda i: store.read(handles[i], 0, 4 * KIB), numbers)
        result["write 4 KiB"] = timed(lambda i: store.write(handles[i], 0, content), numbers)
        counts = [0]
        result["readdir of 10,000"] = timed(lambda _: counts.append(store.names()), [0] * 5)
        assert set(counts[1:]) == {TIMED}
        result["rename"] = timed(lambda i: store.rename(names[i], others[i]), some)
        result["unlink"] = timed(lambda i: store.unlink(others[i]), some)
        assert store.names() == TIMED - len(some)
    finally:
        store.close()
    return result


def measured(candidates: list[str], work: Callable[[str], Figures], rounds: int) -> list[Figures]:
    """The medians of each candidate; nothing of one that this machine does not have."""
    turns: dict[str, list[Figures]] = {candidate: [] for candidate in candidates}
    for _ in range(rounds):
        for candidate, figures in turns.items():
            try:
                figures.append(in_child(work, candidate, limit=A_WHILE))
            except native.Unavailable as error:
                print(f"{candidate}: {error}")
    return [
        {key: statistics.median(turn[key] for turn in figures) for key in figures[0]}
        if figures
        else {}
        for figures in turns.values()
    ]


def table(title: str, candidates: list[str], rows: dict[str, list[str]]) -> None:
    """Print a table with a column for each candidate."""
    print(f"\n| {title} | {' | '.join(candidates)} |\n|---|{'---|' * len(candidates)}")
    for row, cells in rows.items():
        print(f"| {row} | {' | '.join(cells)} |", flush=True)


def compare_memory(candidates: list[str], rounds: int) -> None:
    """The tables of memory."""
    rows: dict[str, list[str]] = {}
    parts: dict[str, list[str]] = {}
    for size, count in FILES.items():
        found = measured(candidates, lambda candidate, size=size: fill(candidate, size), rounds)
        rows[f"{count:,} files of {size:,} bytes"] = [
            " / ".join(f"{f[k]:,.0f}" for k in ("held", "slim", "least")) if f else ""
            for f in found
        ]
        if not size:
            parts = {
                part: [f"{f[part]:,.0f}" if f else "" for f in found]
                for part in (*PARTS, "MemAvailable")
            }
    title = "bytes a file beside content: at first / less names and inodes / less all caches"
    table(title, candidates, rows)
    table("the empty files by part, less all caches; what MemAvailable fell by", candidates, parts)


def compare_speed(candidates: list[str], rounds: int) -> None:
    """The table of times, and what a death of the process does."""
    found = measured(candidates, speed, rounds)
    rows = {}
    for row in found[0]:
        first = found[0][row]
        rows[row] = [f"{f[row]:,.1f} ({f[row] / first:,.1f})" if f else "" for f in found]
    rows["survives its process"] = [CANDIDATES[candidate].survives for candidate in candidates]
    table(f"µs a call (times {candidates[0]})", candidates, rows)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="bench.stores", description=__doc__.split("\n")[0])
    parser.add_argument("--only", choices=CANDIDATES, action="append", help="this candidate only")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each candidate (3)")
    given = parser.parse_args()
    candidates = given.only or list(CANDIDATES)
    began = time.monotonic()
    compare_memory(candidates, given.rounds)
    compare_speed(candidates, given.rounds)
    print(f"\n{time.monotonic() - began:.0f} s, {machine()}")


if __name__ == "__main__":
    main()
