"""What clients do: one function a row.

Each gets a Place and is a generator (see clients.Work): up to its first `yield` it prepares, from
then on the clock runs, until it is closed; leaving its `with` blocks, so closing files, counts.
"""

import contextlib
import itertools
import os
import random
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from bench.clients import Work
from bench.data import Data

KIB, MIB = 1 << 10, 1 << 20
FILES = 2000  # that a client makes, unlinks, ...
MAKING = os.O_RDWR | os.O_CREAT | os.O_TRUNC
_zeros = bytearray(MIB)


class Place(NamedTuple):
    """Where a client works.  `data` is there for all clients to read, `own` is an empty directory
    of this client alone, `client` its number of `clients`."""

    data: Data
    own: Path
    client: int
    clients: int

    def share(self, names: list[str]) -> list[str]:
        """This client's part of a list."""
        return names[self.client :: self.clients]


@contextlib.contextmanager
def _open(path: Path | str, flags: int, *, sync: bool = False) -> Iterator[int]:
    fd = os.open(path, flags, 0o644)
    try:
        yield fd
        if sync:
            os.fsync(fd)
    except GeneratorExit:
        if sync:
            os.fsync(fd)
        raise
    finally:
        os.close(fd)


def write(block: int, *, sync: bool = False) -> Callable[[Place], Work]:
    """Write a new file and close it, from start to end; `sync`: with fsync(2)."""

    def work(place: Place) -> Work:
        content = os.urandom(block)
        yield 0
        with _open(place.own / "file", MAKING, sync=sync) as fd:
            for _ in range(max(1, place.data.sizes.written // place.clients // block)):
                os.write(fd, content)
                yield block

    return work


def read(block: int, *, warm: bool = False) -> Callable[[Place], Work]:
    """Read files from start to end."""

    def work(place: Place) -> Work:
        buffer = memoryview(bytearray(block))
        paths = place.share(place.data.files)
        if warm:
            for path in paths:
                Path(path).read_bytes()
        yield 0
        for path in itertools.islice(itertools.cycle(paths), len(paths) * (3 if warm else 1)):
            with _open(path, os.O_RDONLY) as fd:
                while done := os.readv(fd, [buffer]):
                    yield done

    return work


def _offsets(place: Place) -> list[int]:
    offsets = list(range(0, place.data.sizes.file, 4 * KIB))
    random.Random(place.client).shuffle(offsets)
    return offsets


def random_read(place: Place) -> Work:
    """Read every 4 KiB of a file once, in no order."""
    buffer = [memoryview(bytearray(4 * KIB))]
    offsets = _offsets(place)
    yield 0
    with _open(place.share(place.data.files)[0], os.O_RDONLY) as fd:
        for offset in offsets:
            os.preadv(fd, buffer, offset)
            yield 1


def random_write(place: Place) -> Work:
    """Overwrite every 4 KiB of a file once, in no order, and close it."""
    offsets, content = _offsets(place), os.urandom(4 * KIB)
    path = place.own / "file"
    with _open(path, MAKING, sync=True) as fd:
        for start in range(0, place.data.sizes.file, MIB):
            os.pwrite(fd, _zeros, start)
    yield 0
    with _open(path, os.O_RDWR) as fd:
        for offset in offsets:
            os.pwrite(fd, content, offset)
            yield 1


def _make(path: Path, content: bytes) -> None:
    with _open(path, MAKING) as fd:
        os.write(fd, content)


def create(place: Place) -> Work:
    """Make files of 4 KiB."""
    content = os.urandom(4 * KIB)
    yield 0
    for i in range(FILES // place.clients):
        _make(place.own / f"file{i}", content)
        yield 1


def open_read(*, warm: bool = False) -> Callable[[Place], Work]:
    """Open, read and close small files."""

    def work(place: Place) -> Work:
        paths = place.share(place.data.small[:FILES])
        if warm:
            for path in paths:
                Path(path).read_bytes()
        yield 0
        for path in paths:
            with _open(path, os.O_RDONLY) as fd:
                os.read(fd, 4 * KIB)
            yield 1

    return work


def stat(*, warm: bool = False) -> Callable[[Place], Work]:
    """stat(2) files."""

    def work(place: Place) -> Work:
        paths = place.share(place.data.small)
        if warm:
            paths = paths[:FILES]
            for path in paths:
                os.stat(path)
        yield 0
        for path in paths * (3 if warm else 1):
            os.stat(path)
            yield 1

    return work


def readdir(place: Place) -> Work:
    """Read a directory's names."""
    yield 0
    with os.scandir(place.data.names) as entries:
        for _ in entries:
            yield 1


def ls(place: Place) -> Work:
    """`ls -l` of a directory."""
    yield 0
    subprocess.run(["ls", "-l", place.data.small_directory], check=True, stdout=subprocess.DEVNULL)
    yield len(place.data.small)


def _some(place: Place) -> list[Path]:
    paths = [place.own / f"file{i}" for i in range(FILES // place.clients)]
    for path in paths:
        _make(path, b"content")
    return paths


def unlink(place: Place) -> Work:
    """Unlink files."""
    paths = _some(place)
    yield 0
    for path in paths:
        os.unlink(path)
        yield 1


def rename(place: Place) -> Work:
    """Rename files within their directory."""
    names = [(path, path.with_suffix(".new")) for path in _some(place)]
    yield 0
    for old, new in names:
        os.rename(old, new)
        yield 1


def git_clone(place: Place) -> Work:
    """git clone."""
    yield 0
    url = f"file://{place.data.repository}"
    subprocess.run(["git", "clone", "-q", url, place.own / "clone"], check=True)
    yield 1


def tar(place: Place) -> Work:
    """Unpack an archive."""
    yield 0
    subprocess.run(["tar", "-xf", place.data.archive, "-C", place.own], check=True)
    yield 1


class Row(NamedTuple):
    """A row.  `cold`: nothing is cached when the clock starts ("disk"), or of the mount nothing,
    and of its source this part of the data, so that the disk does not count."""

    name: str
    work: Callable[[Place], Work]
    unit: str = "/s"
    four: bool = True  # whether it is measured with four clients, too
    cold: str = ""


ROWS = (
    Row("write 4 KiB", write(4 * KIB), "MB/s"),
    Row("write 4 KiB, fsync", write(4 * KIB, sync=True), "MB/s", four=False),
    Row("write 1 MiB", write(MIB), "MB/s"),
    Row("write 1 MiB, fsync", write(MIB, sync=True), "MB/s", four=False),
    Row("read 4 KiB, cold", read(4 * KIB), "MB/s", four=False, cold="disk"),
    Row("read 1 MiB, cold", read(MIB), "MB/s", four=False, cold="disk"),
    Row("read 4 KiB, warm", read(4 * KIB, warm=True), "MB/s", four=False),
    Row("read 1 MiB, warm", read(MIB, warm=True), "MB/s"),
    Row("random read 4 KiB", random_read, cold="files"),
    Row("random write 4 KiB", random_write),
    Row("create+write", create),
    Row("open+read, cold", open_read(), cold="small"),
    Row("open+read, warm", open_read(warm=True), four=False),
    Row("stat, cold", stat(), cold="small"),
    Row("stat, warm", stat(warm=True), four=False),
    Row("readdir", readdir, four=False, cold="names"),
    Row("ls -l", ls, four=False, cold="small"),
    Row("unlink", unlink),
    Row("rename", rename),
    Row("git clone", git_clone, four=False),
    Row("tar -x", tar, four=False),
)
