"""What the kernel says of mounts, without touching a mounted path.

Everything here works on a hung or dead mount: it reads /proc/self/mountinfo (proc(5)) and
/sys/fs/fuse/connections, and calls umount2(2) with flags that do not wait for the file system.
"""

import contextlib
import ctypes
import errno
import os
from typing import NamedTuple

FS_TYPE = "fuse.fused"
MNT_FORCE = 1
MNT_DETACH = 2
UMOUNT_NOFOLLOW = 8

_libc = ctypes.CDLL(None, use_errno=True)


class Mount(NamedTuple):
    """One line of mountinfo.  `minor` identifies a FUSE connection (its device is 0:minor)."""

    mountpoint: str
    fs_type: str
    source: str
    major: int
    minor: int
    options: tuple[str, ...]


def _unescape(text: str) -> str:
    if "\\" not in text:
        return text
    raw = text.encode("utf-8", "surrogateescape")
    for char in (b" ", b"\t", b"\n", b"#", b"\\"):
        raw = raw.replace(b"\\%03o" % char[0], char)
    return raw.decode("utf-8", "surrogateescape")


def parse(text: str) -> list[Mount]:
    """The mounts in the text of a mountinfo file, in its order (a later one covers an earlier)."""
    mounts = []
    for line in text.splitlines():
        left, _, right = line.partition(" - ")
        fields, (fs_type, source, *_) = left.split(" "), right.split(" ")
        major, _, minor = fields[2].partition(":")
        options = tuple(fields[5].split(","))
        place = _unescape(fields[4])
        mounts.append(Mount(place, fs_type, _unescape(source), int(major), int(minor), options))
    return mounts


def mounts() -> list[Mount]:
    """All mounts of this mount namespace."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        return parse(file.read())


def at(mountpoint: str) -> Mount | None:
    """The topmost mount exactly at `mountpoint`, or None."""
    found = [mount for mount in mounts() if mount.mountpoint == mountpoint]
    return found[-1] if found else None


def detach(mountpoint: str) -> None:
    """Detach the topmost mount at `mountpoint` lazily (umount2 MNT_DETACH): never waits, and users
    of open files keep them.  Does nothing when nothing is mounted there."""
    try:
        umount(mountpoint, MNT_DETACH)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise


def umount(mountpoint: str, flags: int = 0) -> None:
    """umount2(2), not following a symlink at the end; OSError, EBUSY for one in use.

    Without MNT_DETACH the kernel writes dirty pages back first, which waits for the file system.
    """
    if _libc.umount2(os.fsencode(mountpoint), flags | UMOUNT_NOFOLLOW) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), mountpoint)


def _connection(minor: int, name: str) -> str:
    return f"/sys/fs/fuse/connections/{minor}/{name}"


def waiting(minor: int) -> int | None:
    """Requests that wait for an answer on the connection, or None when there is none such."""
    try:
        with open(_connection(minor, "waiting"), encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):
        return None


def abort(minor: int) -> None:
    """Abort the connection: every request, waiting or new, fails with ECONNABORTED or ENOTCONN.
    Does nothing when the connection is gone.  Where fusectl is not mounted it takes umount2's
    MNT_FORCE, which aborts first and then also unmounts what is not in use."""
    with contextlib.suppress(OSError):
        with open(_connection(minor, "abort"), "w", encoding="ascii") as file:
            file.write("1")
        return
    for mount in mounts():
        if (mount.major, mount.minor) == (0, minor) and at(mount.mountpoint) == mount:
            with contextlib.suppress(OSError):
                umount(mount.mountpoint, MNT_FORCE)
            return
