"""The file systems that are measured, each mounted for the time of a `with` block."""

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import native
from forked import in_child
from supervised import Mount, wait_until

from bench.peers import Peers
from fused import mountinfo

SLOW = 16  # how much less data the peers' file systems in memory get: they copy whole files
TMPFS = "size=4g"


class Served(NamedTuple):
    """A mounted contender: its root, and the process that serves it (0 for the kernel)."""

    root: Path
    pid: int = 0


class Contender(NamedTuple):
    """One column.  `serve(directory)` mounts it, using the directory, which is its own;
    `scale` divides the size of its data."""

    name: str
    serve: Callable[[Path], AbstractContextManager[Served]]
    scale: int = 1


class Field(NamedTuple):
    """Contenders of one kind, the native file system first.  `shown` is the directory that all
    show, None when each holds what it is given."""

    name: str
    shown: Path | None
    contenders: tuple[Contender, ...]


@contextmanager
def _native(root: Path) -> Iterator[Served]:
    yield Served(root)


@contextmanager
def _peer(directory: Path, command: list[str]) -> Iterator[Served]:
    """A server in the foreground: `command`, and the mountpoint."""
    place = directory / "mnt"
    place.mkdir(parents=True)
    with open(directory / "log", "wb") as log:
        process = subprocess.Popen([*command, str(place)], stdout=log, stderr=log)
    try:
        wait_until(lambda: mountinfo.at(str(place)) or process.poll() is not None, 15, command[-1])
        if process.poll() is not None:
            raise RuntimeError(f"{command} ended:\n{(directory / 'log').read_text()}")
        yield Served(place, process.pid)
    finally:
        _end(process, place)


def _end(process: "subprocess.Popen[bytes]", place: Path) -> None:
    with suppress(OSError, AssertionError):
        in_child(mountinfo.umount, str(place), limit=20)
    mount = mountinfo.at(str(place))
    if mount is not None:
        mountinfo.abort(mount.minor)
        mountinfo.detach(str(place))
    with suppress(subprocess.TimeoutExpired):
        process.wait(5)
    process.kill()
    process.wait()


@contextmanager
def _fused(directory: Path, type_name: str, **options: Any) -> Iterator[Served]:
    """Its runtime directory is on a tmpfs, as /run is."""
    with native.tmpfs(directory) as place, Mount(place / "mount", type_name, **options) as mount:
        yield Served(mount.path, mount.pid)


@contextmanager
def ext4(directory: Path) -> Iterator[Path]:
    """An ext4 of its own in an image, so that what else happens on the machine's disk (and how it
    was made: without a journal ext4 takes long to reuse inodes) does not count.  A plain directory
    where there are no loop devices."""
    place = directory / "source"
    with ExitStack() as stack:
        image = native.on_image("ext4", place, size=6 << 30, direct=True)
        try:
            stack.enter_context(image)
        except native.Unavailable as error:
            print(f"measuring on the disk itself: {error}", file=sys.stderr)
        yield place


def _mirrors(source: Path, peers: Peers) -> list[Contender]:
    shown = str(source)
    contenders = [
        Contender(
            library,
            lambda place, library=library: _peer(  # type: ignore[misc]
                place, [*peers.example(library, "passthroughfs"), shown]
            ),
        )
        for library in ("llfuse", "pyfuse3")
    ]
    if shutil.which("bindfs"):
        contenders.append(Contender("bindfs", lambda place: _peer(place, ["bindfs", "-f", shown])))
    return contenders


def _passthrough(name: str, source: Path, cache: str, **options: Any) -> Contender:
    options |= {"source": str(source), "cache": cache}
    return Contender(name, lambda place: _fused(place, "passthrough", **options))


def threads(source: Path, numbers: list[int]) -> Field:
    """fused alone, with so many serving threads."""
    mirrors = [
        _passthrough(f"{cache} {number}", source, cache, threads=number)
        for cache in ("shared", "exclusive")
        for number in numbers
    ]
    return Field("threads", source, (Contender("native", lambda place: _native(source)), *mirrors))


def disk(source: Path, peers: Peers) -> Field:
    """Mirrors of a directory on a disk."""
    return Field(
        "disk",
        source,
        (
            Contender("native", lambda place: _native(source)),
            *_mirrors(source, peers),
            _passthrough("fused shared", source, "shared"),
            _passthrough("fused exclusive", source, "exclusive"),
        ),
    )


@contextmanager
def _tmpfs_contender(directory: Path) -> Iterator[Served]:
    with native.tmpfs(directory, TMPFS) as place:
        yield Served(place)


@contextmanager
def _passthrough_on_tmpfs(directory: Path) -> Iterator[Served]:
    with (
        native.tmpfs(directory / "source", TMPFS) as source,
        _fused(directory / "mount", "passthrough", source=str(source), cache="exclusive") as mount,
    ):
        yield mount


def memory(peers: Peers) -> Field:
    """File systems in memory."""
    return Field(
        "memory",
        None,
        (
            Contender("tmpfs", _tmpfs_contender),
            *(
                Contender(
                    library,
                    lambda place, library=library: _peer(  # type: ignore[misc]
                        place, peers.example(library, "tmpfs")
                    ),
                    SLOW,
                )
                for library in ("llfuse", "pyfuse3")
            ),
            Contender("passthrough on tmpfs", _passthrough_on_tmpfs),
            Contender("fused memory", lambda place: _fused(place, "memory", size="4GiB")),
        ),
    )
