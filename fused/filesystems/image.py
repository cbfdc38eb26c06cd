"""The image file of a persistent memory mount: one ext4, in one file, for one mount at a time.

Whoever uses the file holds a lock on it (flock(2)).  The loop device is made of the locked
descriptor, so that the lock is kept for as long as the kernel has anything to do with the file,
also when every process that knew of it is dead.

The file is made under another name, and gets its own when nothing is missing any more; its space
on the disk is provided at once, and stays so.
"""

import errno
import fcntl
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

from fused.errors import WorkerFailed
from fused.filesystems import loop

NAME, UNFINISHED = "store.ext4", "store.ext4.new"
BLOCK = 4096  # bytes
MIB = 1 << 20
PATIENCE = 10.0  # seconds for a former mount's end
# Fixed, so that a store does not depend on the distribution's mke2fs.conf(5).
_FEATURES = (
    "none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg,sparse_super,"
    "large_file,huge_file,dir_nlink,extra_isize,metadata_csum"
)
_INODE, _DESCRIPTOR = 256, 64  # bytes, in the tables of inodes and of groups
_RESERVED_INODES = 10  # that ext4 has for itself, its root among them
_GROUP = 8 * BLOCK  # blocks that one block of bits stands for
_GROWTH = 1024  # by which mke2fs lets a file system grow


class Limits(NamedTuple):
    """What a mount may hold: blocks of content, and files with its root."""

    blocks: int
    inodes: int

    @property
    def slack(self) -> int:
        """Blocks beside, so that a file in many pieces has where to note them when all is full."""
        return self.blocks // 256 + 64


class Image(NamedTuple):
    """An image file that is open and locked."""

    fd: int
    path: str
    finished: bool

    def close(self) -> None:
        """Give it up; the lock stays for as long as a loop device has the file."""
        os.close(self.fd)


def open_image(directory: str, names: Sequence[str] = (NAME, UNFINISHED)) -> Image:
    """The first of these images in `directory`; the last is made when missing, empty.

    WorkerFailed when that cannot be, or somebody else has the image and keeps it."""
    try:
        os.makedirs(directory, exist_ok=True)
        if not os.listdir(directory):
            os.chmod(directory, 0o700)
        directory = os.path.realpath(directory)
        while (image := _opened(directory, names)) is None:
            pass
        return image
    except OSError as error:
        what = f"{error.strerror} ({error.filename or directory})"
        raise WorkerFailed(f"cannot use {directory!r} of 'persist': {what}") from None


def _opened(directory: str, names: Sequence[str]) -> Image | None:
    """None when the file has got another name meanwhile."""
    there = [name for name in names[:-1] if os.path.lexists(os.path.join(directory, name))]
    path = os.path.join(directory, *there[:1] or names[-1:])
    finished = os.path.basename(path) == NAME
    create = 0 if finished else os.O_CREAT
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | create, 0o600)
    except FileNotFoundError:
        return None
    try:
        _lock(fd, path)
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(fd), os.stat(path)):
                if not finished:
                    os.ftruncate(fd, 0)  # what a power cut has left
                return Image(fd, path, finished)
    except BaseException:
        os.close(fd)
        raise
    os.close(fd)
    return None


def _lock(fd: int, path: str) -> None:
    """Lock the file, once a former mount that is just ending has written what it has to."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not (devices := loop.devices_of(path)):
                return
            fcntl.flock(fd, fcntl.LOCK_UN)
            whose = f"the loop device {devices[0]} is made of it, and not by a mount of ours"
        except BlockingIOError:
            whose = _users(fd) or "a mount that nobody serves any more"
        if time.monotonic() > deadline:
            raise WorkerFailed(
                f"cannot use {path}: it is in use by {whose}; a store is for one mount at a time"
            )
        time.sleep(0.02)


def _users(fd: int) -> str:
    """The processes that have the file open, beside this one: `4121 (fused worker NAME)`."""
    own, found = os.fstat(fd), []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):  # it may just be ending
            fds = f"/proc/{pid}/fd"
            for number in os.listdir(fds) if int(pid) != os.getpid() else ():
                if os.path.samestat(own, os.stat(f"{fds}/{number}")):
                    with open(f"/proc/{pid}/cmdline", "rb") as file:
                        command = file.read().replace(b"\0", b" ").decode(errors="replace")
                    found.append(f"{pid} ({command.strip()})")
                    break
    return f"process {', '.join(found)}" if found else ""


# -- making one --------------------------------------------------------------------------------


def extent(limits: Limits) -> int:
    """The bytes that an image with these limits takes, rather too many than too few."""
    inodes = limits.inodes + _RESERVED_INODES
    content = limits.blocks + limits.slack + _journal(limits) * MIB // BLOCK
    total = content
    for _ in range(3):
        groups = total // _GROUP + 1
        tables = groups * (2 + -(-inodes // groups) * _INODE // BLOCK + 1)
        descriptors = groups * _DESCRIPTOR // BLOCK + 1
        growth = min(1024, total * _GROWTH // _GROUP * _DESCRIPTOR // BLOCK)
        copies = sum(groups > power**n for power in (3, 5, 7) for n in range(1, 14)) + 2
        total = content + tables + min(copies, groups) * (1 + descriptors + growth) + _GROUP // 64
    return -(-total * BLOCK // MIB) * MIB


def _journal(limits: Limits) -> int:
    """MiB of journal: what mke2fs takes for such sizes, and at most 64."""
    return max(4, min(64, limits.blocks * BLOCK // MIB // 64))


def make(image: Image, limits: Limits) -> None:
    """Make an ext4 in an empty image.  WorkerFailed, with the way out."""
    reserve(image, extent(limits))
    command = ["mkfs.ext4", "-q", "-F", "-b", str(BLOCK), "-m", "0", "-I", str(_INODE)]
    command += ["-N", str(limits.inodes + _RESERVED_INODES - 1), "-O", _FEATURES]
    command += ["-J", f"size={_journal(limits)}", "-E", "nodiscard,assume_storage_prezeroed=1"]
    import subprocess

    try:
        made = subprocess.run(
            [*command, image.path], stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
    except FileNotFoundError:
        raise WorkerFailed(
            "cannot make a persistent store: there is no mkfs.ext4; install it, on Debian and "
            "Ubuntu with 'apt install e2fsprogs'"
        ) from None
    if made.returncode:
        why = " ".join(made.stderr.split()) or f"exit status {made.returncode}"
        raise WorkerFailed(f"cannot make a persistent store: mkfs.ext4 says: {why}")


def reserve(image: Image, size: int) -> None:
    """Let the image be so many bytes, with all its space provided.  WorkerFailed."""
    former = os.fstat(image.fd).st_size
    here = os.statvfs(image.fd)
    free = here.f_bfree * here.f_frsize
    try:
        if size - former > free:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.posix_fallocate(image.fd, former, size - former)
        os.fsync(image.fd)
    except OSError as error:
        with suppress(OSError):
            os.ftruncate(image.fd, former)
        what = f"cannot provide {_mib(size)} for {image.path}: {error.strerror}"
        if error.errno == errno.ENOSPC:
            what += (
                f", its disk has {_mib(free + former * (former < size))} for it; make room there, "
                "or give less as 'size'"
            )
        raise WorkerFailed(what) from None


def _mib(size: int) -> str:
    return f"{-(-size // MIB):,} MiB" if size >= MIB else f"{size:,} bytes"


def finish(image: Image) -> Image:
    """Give a new image, complete on its disk, its name."""
    os.fsync(image.fd)
    directory = os.path.dirname(image.path)
    path = os.path.join(directory, NAME)
    os.rename(image.path, path)
    while True:  # each directory may be new as well
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        if directory == "/" or os.path.ismount(directory):
            return image._replace(path=path, finished=True)
        directory = os.path.dirname(directory)
