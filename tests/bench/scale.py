"""Whether a request costs more when there is more: `PYTHONPATH=tests python -m bench.scale`.

Three tables.  Microseconds an operation of one client, medians, with more and more inodes known to
the kernel, and in directories with more and more names; and how fast a file is written, the larger
it is, beside the kernel's tmpfs.
"""

import os
import shutil
import statistics
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter_ns, sleep
from typing import Any

import native
from forked import Result, in_child
from supervised import REPOSITORY, Mount, abandon

KNOWN = (10**3, 10**4, 10**5, 10**6)
NAMES = (10**2, 10**3, 10**4, 10**5)
LENGTHS = tuple(1 << shift for shift in (20, 24, 28, 30, 32))  # bytes
BLOCK = 1 << 20
CALLS, ROUNDS = 500, 5
LIMIT = 600.0  # seconds for one row
OPERATIONS = ("create", "stat", "open+read", "absent", "rename", "unlink")
KINDS = {
    "memory": ("memory", {"inodes": 3 * KNOWN[-1]}),
    "passthrough, shared": ("passthrough", {"cache": "shared"}),
    "passthrough, exclusive": ("passthrough", {"cache": "exclusive"}),
}


def _timed(function: Callable[[str], object], paths: list[str]) -> float:
    began = perf_counter_ns()
    for path in paths:
        function(path)
    return (perf_counter_ns() - began) / len(paths) / 1000


def _create(path: str) -> None:
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o644))


def _read(path: str) -> None:
    fd = os.open(path, os.O_RDONLY)
    os.read(fd, 4096)
    os.close(fd)


def _rename(path: str) -> None:
    os.rename(path, path + "'")


def operations(directory: Path) -> list[float]:
    """Microseconds for each of OPERATIONS with files in `directory`."""
    rounds = []
    for number in range(ROUNDS):
        paths = [f"{directory}/new{number}-{i}" for i in range(CALLS)]
        times = [_timed(_create, paths)]
        sleep(0.6)  # what `cache: shared` has told is not believed any more
        times.append(_timed(os.stat, paths))
        times.append(_timed(_read, paths))
        times.append(_timed(os.path.exists, [path + "-absent" for path in paths]))
        times.append(_timed(_rename, paths))
        times.append(_timed(os.unlink, [path + "'" for path in paths]))
        rounds.append(times)
    return [statistics.median(times) for times in zip(*rounds, strict=True)]


def _fill(directory: Path, first: int, last: int, per_directory: int) -> None:
    """Make files `first` to `last` and have them known."""
    for i in range(first, last):
        below = directory / f"part{i // per_directory}"
        if i % per_directory == 0 or i == first:
            below.mkdir(exist_ok=True)
        os.mknod(below / f"file{i}")


@contextmanager
def _mount(place: Path, kind: str) -> Iterator[Mount]:
    type_name, options = KINDS[kind]
    directory = Path(tempfile.mkdtemp(dir=place))
    os.chmod(directory, 0o755)
    if type_name == "passthrough":
        (directory / "source").mkdir()
        options = options | {"source": str(directory / "source")}
    with Mount(directory / "mount", type_name, **options) as mount:
        yield mount
    shutil.rmtree(directory)


def _in(mount: Mount, function: Callable[..., Result], *arguments: Any) -> Result:
    """What a child that works on the mount returns."""
    return in_child(function, *arguments, limit=LIMIT, rescue=mount.abort)


def table(place: Path, kind: str, title: str, steps: tuple[int, ...], per_directory: int) -> None:
    """A line for each step: with so many files before."""
    print(f"{kind + ', ' + title:42}" + "".join(f"{name:>11}" for name in OPERATIONS))
    with _mount(place, kind) as mount:
        have, lines = 0, []
        for wanted in steps:
            _in(mount, _fill, mount.path, have, wanted, per_directory)
            have = wanted
            where = mount.path / f"part{(wanted - 1) // per_directory}"
            lines.append(_in(mount, operations, where))
            print(f"{wanted:>42,}" + "".join(f"{value:>11.1f}" for value in lines[-1]), flush=True)
        ratios = [last / first for first, last in zip(lines[0], lines[-1], strict=True)]
        print(f"{'last / first':>42}" + "".join(f"{ratio:>11.2f}" for ratio in ratios), end="\n\n")


def _write(path: Path, length: int) -> float:
    block = os.urandom(BLOCK)
    began = perf_counter_ns()
    fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o644)
    for _ in range(length // BLOCK):
        os.write(fd, block)
    os.close(fd)
    seconds = (perf_counter_ns() - began) / 1e9
    os.unlink(path)
    return seconds


def lengths(place: Path) -> None:
    """A line for each length of a file."""
    print(f"{'writing a file of':>22}{'MiB/s on memory':>18}{'on tmpfs':>12}")
    with (
        Mount(place / "memory", "memory", size="5GiB") as mount,
        native.tmpfs(place / "tmpfs", "size=5g") as plain,
    ):
        for length in LENGTHS:
            rounds = []
            for _ in range(3 if length > 1 << 28 else 9):
                ours = _in(mount, _write, mount.path / "file", length)
                rounds.append((ours, _write(plain / "file", length)))
            speeds = [length / (1 << 20) / statistics.median(side) for side in zip(*rounds)]  # noqa: B905
            print(f"{length >> 20:>18,} MiB{speeds[0]:>18,.0f}{speeds[1]:>12,.0f}", flush=True)
    print()


def main() -> None:
    """Measure, and print as it comes."""
    work = REPOSITORY / "run/bench"
    work.mkdir(parents=True, exist_ok=True)
    place = Path(tempfile.mkdtemp(prefix="scale-", dir=work))
    os.chmod(place, 0o755)
    try:
        lengths(place)
        for kind in KINDS:
            table(place, kind, "known inodes", KNOWN, 1000)
            table(place, kind, "names in the directory", NAMES, NAMES[-1])
    finally:
        abandon(place)
        shutil.rmtree(place)


if __name__ == "__main__":
    main()
