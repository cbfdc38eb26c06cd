"""The kernel's side of a mount: the /dev/fuse descriptor, mount(2) and FUSE_INIT.

fused opens the connection and answers the handshake itself, because libfuse 2.9 stops at protocol
7.19 and could not ask for the features that make a mount fast.  Structures and numbers follow
include/uapi/linux/fuse.h; mount options follow fs/fuse/inode.c.
"""

import contextlib
import ctypes
import errno
import os
import select
import struct

from fused import mountinfo
from fused.errors import WorkerFailed
from fused.spec import MountSpec

# FUSE_INIT flags
ASYNC_READ, ATOMIC_O_TRUNC, BIG_WRITES, DONT_MASK = 1 << 0, 1 << 3, 1 << 5, 1 << 6
AUTO_INVAL_DATA, ASYNC_DIO, WRITEBACK_CACHE = 1 << 12, 1 << 15, 1 << 16
PARALLEL_DIROPS, POSIX_ACL, MAX_PAGES, CACHE_SYMLINKS = 1 << 18, 1 << 20, 1 << 22, 1 << 23
HANDLE_KILLPRIV_V2, INIT_EXT, PASSTHROUGH, HAS_RESEND = 1 << 28, 1 << 30, 1 << 37, 1 << 39

ALWAYS = ASYNC_READ | ATOMIC_O_TRUNC | BIG_WRITES | ASYNC_DIO | PARALLEL_DIROPS | MAX_PAGES

IN_HEADER = struct.Struct("<IIQQIIIHH")  # len opcode unique nodeid uid gid pid extlen pad
OUT_HEADER = struct.Struct("<IiQ")  # len error unique
INIT_OPCODE, GETATTR_OPCODE = 26, 3
FORGET, INTERRUPT, BATCH_FORGET = 2, 36, 42
NO_REPLY_OPCODES = (FORGET, INTERRUPT, BATCH_FORGET)
RESENT = 1 << 63  # in `unique`
NOTIFY_INVAL_INODE, NOTIFY_RESEND = 2, 7
MAX_WRITE = 128 << 10  # what libfuse 2.9's buffer takes
MAX_READ_PAGES = 256
READ_AHEAD_KIB = 1024

_MOUNT_FLAGS = {
    "ro": 1, "nosuid": 2, "nodev": 4, "noexec": 8, "sync": 16, "dirsync": 128,
    "noatime": 1024, "nodiratime": 2048, "relatime": 1 << 21, "strictatime": 1 << 24,
    "lazytime": 1 << 25, "nosymfollow": 256,
}  # fmt: skip
_UNSET_FLAGS = {"rw", "suid", "dev", "exec", "async", "atime", "diratime"}

CLONE_NEWNS = 0x20000
MS_REC, MS_PRIVATE = 1 << 14, 1 << 18
_libc = ctypes.CDLL(None, use_errno=True)


def enter_private_mount_namespace() -> None:
    """Let the calling thread see and make mounts that nobody else sees (unshare(2)).  OSError."""
    if (
        _libc.unshare(CLONE_NEWNS) != 0
        or _libc.mount(b"none", b"/", None, ctypes.c_ulong(MS_REC | MS_PRIVATE), None) != 0
    ):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def open_connection(spec: MountSpec, wanted: int) -> tuple[int, int, int]:
    """Mount `spec` and shake hands with the kernel.

    Returns the descriptor, the device's minor number, and those of the FUSE_INIT flags `wanted`
    that the kernel has too.  WorkerFailed when the mountpoint cannot be used.
    """
    _prepare_mountpoint(spec)
    try:
        fd = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise WorkerFailed(
            f"cannot open /dev/fuse: {error.strerror}; load the module with 'modprobe fuse'"
        ) from None
    try:
        _mount(spec, fd)
        features = _handshake(fd, wanted)
    except BaseException:
        os.close(fd)
        raise
    mount = mountinfo.at(spec.mountpoint)
    if mount is None or mount.fs_type != mountinfo.FS_TYPE:
        os.close(fd)
        raise WorkerFailed(f"cannot mount {spec.name!r}: {spec.mountpoint} was unmounted at once")
    tune(mount.minor)
    return fd, mount.minor, features


def is_left_behind(spec: MountSpec) -> bool:
    """Whether there is a mount of ours already."""
    mount = mountinfo.at(spec.mountpoint)
    return mount is not None and (mount.fs_type, mount.source) == (mountinfo.FS_TYPE, spec.name)


def _prepare_mountpoint(spec: MountSpec) -> None:
    """Detach what is left of a dead mount of ours; refuse a place that is taken."""
    place = spec.mountpoint
    while (mount := mountinfo.at(place)) is not None:
        ours = is_left_behind(spec)
        if not ours or not _is_dead(place):
            what = f"has {mount.source!r} ({mount.fs_type}) mounted on it"
            if ours:
                what = "is served by another worker"
            raise WorkerFailed(
                f"cannot mount {spec.name!r}: {place} {what} already; unmount that "
                f"('umount {place}') or choose another mountpoint"
            )
        mountinfo.abort(mount.minor)
        mountinfo.detach(place)
    try:
        os.makedirs(place, exist_ok=True)
        if not os.path.isdir(place):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    except OSError as error:
        raise WorkerFailed(
            f"cannot mount {spec.name!r}: cannot make the mountpoint {place}: {error.strerror}"
        ) from None
    if os.path.realpath(place) != place:
        raise WorkerFailed(
            f"cannot mount {spec.name!r}: the mountpoint {place} leads through a symbolic link to "
            f"{os.path.realpath(place)}; name that directory instead"
        )


def _is_dead(place: str) -> bool:
    """Whether a mount has lost its server for good.  One that hangs has not."""
    import subprocess

    command = ["stat", "--file-system", "--format=", place]
    try:
        result = subprocess.run(
            command, capture_output=True, text=True, timeout=3, check=False, env={"LC_ALL": "C"}
        )
    except subprocess.TimeoutExpired:
        return False
    return os.strerror(errno.ENOTCONN) in result.stderr


def _mount(spec: MountSpec, fd: int) -> None:
    flags = _MOUNT_FLAGS["nosuid"] | _MOUNT_FLAGS["nodev"] if os.geteuid() != 0 else 0
    for option in (*spec.mount_options, *(("ro",) if spec.read_only else ())):
        if option not in _UNSET_FLAGS:
            flags |= _MOUNT_FLAGS[option]
    data = f"fd={fd},rootmode=40000,user_id={os.geteuid()},group_id={os.getegid()}"
    data += ",default_permissions" + (",allow_other" if spec.allow_other else "")
    result = _libc.mount(
        os.fsencode(spec.name),
        os.fsencode(spec.mountpoint),
        mountinfo.FS_TYPE.encode(),
        ctypes.c_ulong(flags),
        data.encode(),
    )
    if result != 0:
        number = ctypes.get_errno()
        hint = "; a worker has to run as root" if number == errno.EPERM else ""
        raise WorkerFailed(
            f"cannot mount {spec.name!r} on {spec.mountpoint}: {os.strerror(number)}{hint}"
        )


def _handshake(fd: int, wanted: int) -> int:
    """Answer FUSE_INIT; returns the flags that both sides have."""
    request = os.read(fd, MAX_WRITE + 4096)
    _, opcode, unique, *_ = IN_HEADER.unpack_from(request)
    flags2: int
    major, minor, readahead, flags, flags2 = struct.unpack_from("<IIIII", request, 40)
    if opcode != INIT_OPCODE or major != 7 or minor < 36:
        raise WorkerFailed(
            f"cannot serve: the kernel speaks FUSE {major}.{minor}, fused needs 7.36 (Linux 5.16)"
        )
    offered = flags | flags2 << 32
    both: int = (wanted | ALWAYS | INIT_EXT | HAS_RESEND) & offered
    if both & PASSTHROUGH:  # the source's own page cache writes back
        both &= ~WRITEBACK_CACHE
    body = struct.pack(
        "<IIIIHHIIHHIIH",
        7, min(minor, 45), readahead, both & 0xFFFFFFFF, 64, 48, MAX_WRITE, 1,
        MAX_READ_PAGES, 0, both >> 32, 1 if both & PASSTHROUGH else 0, 0,
    ).ljust(64, b"\0")  # fmt: skip
    os.write(fd, OUT_HEADER.pack(16 + len(body), 0, unique) + body)
    return both


def tune(minor: int) -> None:
    """Let the kernel read further ahead than its 128 KiB; a kernel without the knob is fine."""
    with (
        contextlib.suppress(OSError),
        open(f"/sys/class/bdi/0:{minor}/read_ahead_kb", "w", encoding="ascii") as file,
    ):
        file.write(str(READ_AHEAD_KIB))


def alive(fd: int) -> bool:
    """Whether the connection still has a mount: an aborted or unmounted one polls POLLERR."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return not any(event & (select.POLLERR | select.POLLNVAL) for _, event in poll.poll(0))


def idle(fd: int) -> bool:
    """Whether the kernel has nothing for us to read."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return not poll.poll(0)


def forgets(message: memoryview) -> list[tuple[int, int]] | None:
    """Node ids and counts in a FORGET or BATCH_FORGET; None for any other message."""
    length, opcode, _, node, *_ = IN_HEADER.unpack_from(message)
    if opcode == FORGET:
        return [(node, *struct.unpack_from("<Q", message, 40))]
    if opcode != BATCH_FORGET:
        return None
    (count,) = struct.unpack_from("<I", message, 40)
    end = min(48 + 16 * count, length, len(message) // 16 * 16)
    return list(struct.iter_unpack("<QQ", message[48 : end - end % 16]))


def resend(fd: int) -> None:
    """FUSE_NOTIFY_RESEND: requests that were read and not answered are delivered again."""
    os.write(fd, OUT_HEADER.pack(16, NOTIFY_RESEND, 0))
