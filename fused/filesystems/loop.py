"""Loop devices: a file as a block device, after loop(4).

A device made here goes by itself when nobody has it open or mounted any more (autoclear), and so
does its hold of the file, locks included.
"""

import errno
import fcntl
import glob
import os
import struct
from contextlib import suppress

from fused.errors import WorkerFailed

_CONFIGURE, _GET_FREE = 0x4C0A, 0x4C82
_AUTOCLEAR, _DIRECT_IO = 4, 16
# fd and block size; loop_info64: device to size limit, number to key size, flags, name; the rest
_CONFIG = struct.Struct("=II5Q3II64s112x64x")
_ATTEMPTS = 64  # to be faster than others who look for a free device, too


def attach(file: int, block_size: int, label: str) -> tuple[int, str]:
    """Make a loop device of an open file; a descriptor of it, and its name, as in /dev.

    Data goes straight to the file's disk where its file system can do so (direct I/O), not through
    a second cache.  `label` is for those who list devices.  WorkerFailed when there is none.
    """
    flags = _AUTOCLEAR | _DIRECT_IO
    config = _CONFIG.pack(file, block_size, 0, 0, 0, 0, 0, 0, 0, 0, flags, os.fsencode(label)[:63])
    try:
        control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
        try:
            for _ in range(_ATTEMPTS):
                name = f"loop{fcntl.ioctl(control, _GET_FREE)}"
                if (device := _configured(name, config)) >= 0:
                    return device, name
        finally:
            os.close(control)
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), "/dev/loop-control")
    except OSError as error:
        raise WorkerFailed(
            f"cannot make a loop device for {label}: {error.filename}: {error.strerror}; load the "
            "module with 'modprobe loop', or give this container the devices "
            "/dev/loop-control and /dev/loop*"
        ) from None


def _configured(name: str, config: bytes) -> int:
    """A descriptor of the device with its file; -1 when somebody else has just taken it."""
    path = f"/dev/{name}"
    device = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(device, _CONFIGURE, config)
    except OSError as error:
        os.close(device)
        if error.errno == errno.EBUSY:
            return -1
        raise OSError(error.errno, error.strerror, path) from None
    return device


def name_of(fd: int) -> str:
    """The name of the loop device that the file system of an open file lies on."""
    device = os.fstat(fd).st_dev
    return os.path.basename(os.readlink(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}"))


def devices_of(path: str) -> list[str]:
    """The names of the loop devices whose file has this path (absolute, without symlinks)."""
    found = []
    for entry in glob.glob("/sys/block/loop*/loop/backing_file"):
        with suppress(OSError), open(entry, "rb") as file:  # it may just be going
            if file.read().rstrip(b"\n") == os.fsencode(path):
                found.append(entry.split("/")[3])
    return found
