"""The kernel's own file systems, each mounted for the time of a `with` block."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from fused import mountinfo


class Unavailable(Exception):
    """A file system cannot be had on this machine; the text says what it takes."""


class Kind(NamedTuple):
    """The size of the sparse image in bytes, and what makes a file system in it."""

    size: int
    make: tuple[str, ...]


KINDS = {
    # Smaller than 512 MiB it would have blocks of 1 KiB.
    "ext4": Kind(
        2 << 30, ("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0")
    ),
    # Four allocation groups of 1 TiB, among which directories are spread: most inode numbers take
    # more than 32 bits, as on any large disk.
    "xfs": Kind(4 << 40, ("mkfs.xfs", "-q", "-K", "-l", "size=64m")),
}


@contextmanager
def mounted(kind: str, place: Path) -> Iterator[Path]:
    """A new "tmpfs", or one of KINDS in an image beside `place`, which is made when it is missing.

    Unavailable when this machine cannot mount one; OSError EBUSY, after everything is detached,
    when somebody still uses it at the end."""
    with tmpfs(place) if kind == "tmpfs" else on_image(kind, place) as path:
        yield path


@contextmanager
def tmpfs(place: Path, options: str = "mode=755") -> Iterator[Path]:
    """A tmpfs at `place`; otherwise like `mounted`."""
    place.mkdir(parents=True, exist_ok=True)
    _run(f"mount a tmpfs at {place}", "mount", "-t", "tmpfs", "-o", options, "tmpfs", place)
    with _unmounted(place):
        yield place


@contextmanager
def on_image(
    kind: str, place: Path, *, options: tuple[str, ...] = (), size: int = 0, direct: bool = False
) -> Iterator[Path]:
    """One of KINDS, made with further `options`, on a loop device; otherwise like `mounted`.

    `size` in bytes instead of the usual one; `direct`: past the page cache of what is below."""
    usual, make = KINDS[kind]
    place.mkdir(parents=True, exist_ok=True)
    image = place.with_name(f"{place.name}.{kind}")
    what = f"mount an {kind} at {place}"
    try:
        with open(image, "xb") as file:
            file.truncate(size or usual)
        _run(what, *make, *options, image)
        access = f"--direct-io={'on' if direct else 'off'}"
        device = _run(what, "losetup", "--find", "--show", access, image)
        try:
            _run(what, "mount", "-t", kind, device, place)
        finally:
            _run(what, "losetup", "--detach", device)  # as soon as it is unmounted
        with _unmounted(place):
            os.chmod(place, 0o755)
            yield place
    finally:
        image.unlink(missing_ok=True)


@contextmanager
def _unmounted(place: Path) -> Iterator[None]:
    try:
        yield
    finally:
        try:
            mountinfo.umount(str(place))
        except OSError:
            mountinfo.detach(str(place))
            raise


def _run(what: str, *command: str | Path) -> str:
    """What the command prints; Unavailable when it fails."""
    needs = "it takes root, loop devices (/dev/loop-control; modprobe loop), the kernel's module \
and the programs that packaging/prepare installs"
    try:
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    except OSError as error:
        raise Unavailable(f"cannot {what}: {command[0]}: {error.strerror}; {needs}") from None
    except subprocess.CalledProcessError as error:
        raise Unavailable(f"cannot {what}: {error.stderr.strip()}; {needs}") from None
    return done.stdout.strip()
