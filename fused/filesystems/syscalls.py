"""System calls that the os module lacks, each after its man page in section 2.

They keep the interpreter lock (PyDLL): all are short, and giving the lock up costs more than they
do.  Buffers are shared: callers hold llfuse's global lock.
"""

import ctypes
import os
import struct

AT_EMPTY_PATH = 0x1000
PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP = 28, 1 << 2
UTIME_OMIT = (1 << 30) - 2
MAX_HANDLE = 128
TMPFS = 0x01021994  # what `fs_type` says of one

_libc = ctypes.PyDLL(None, use_errno=True)
_errno = ctypes.get_errno
_getdents64 = _libc.getdents64
_getdents64.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t)
_getdents64.restype = ctypes.c_ssize_t
_name_to_handle = _libc.name_to_handle_at
_name_to_handle.argtypes = (
    ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int,
)  # fmt: skip
_open_by_handle = _libc.open_by_handle_at
_open_by_handle.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_int)
_utimensat = _libc.utimensat
setfsuid, setfsgid = _libc.setfsuid, _libc.setfsgid

_handle = ctypes.create_string_buffer(8 + MAX_HANDLE)
_handle_view = memoryview(_handle).cast("B")
_handle_length = _handle_view[:4].cast("I")
_handle_at = ctypes.addressof(_handle)
_mount_id = ctypes.c_int()
_mount_id_at = ctypes.addressof(_mount_id)

_DENTS_BYTES = 64 << 10
_dents = ctypes.create_string_buffer(_DENTS_BYTES)
_dents_at = ctypes.addressof(_dents)
_DIRENT = struct.Struct("=QqHB")
_NAME_AT = _DIRENT.size


def _fail(what: object = None) -> OSError:
    number = _errno()
    return OSError(number, os.strerror(number), what)


def keep_capabilities() -> None:
    """From now on a change of the thread's file system user keeps its capabilities."""
    if _libc.prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP, 0, 0, 0) != 0:
        raise _fail()


def name_to_handle(directory: int, name: bytes) -> bytes:
    """The file handle of a name, not following a symlink (of `directory` itself for b"").

    Its type and bytes as `open_by_handle` takes them.  OSError EOPNOTSUPP where there are none."""
    _handle_length[0] = MAX_HANDLE
    flags = 0 if name else AT_EMPTY_PATH
    if _name_to_handle(directory, name, _handle_at, _mount_id_at, flags) != 0:
        raise _fail()
    return _handle_view[: 8 + _handle_length[0]].tobytes()


def open_by_handle(mount: int, handle: bytes, flags: int) -> int:
    """A descriptor of the file, on the file system that `mount` is open on (not O_PATH)."""
    fd: int = _open_by_handle(mount, handle, flags | os.O_CLOEXEC)
    if fd < 0:
        raise _fail()
    return fd


def fs_type(fd: int) -> int:
    """What kind of file system a descriptor is on: f_type of statfs(2)."""
    buffer = ctypes.create_string_buffer(256)
    if _libc.fstatfs(fd, buffer) != 0:
        raise _fail()
    return ctypes.c_long.from_buffer(buffer).value


def getdents(fd: int) -> list[tuple[bytes, int, int, int]]:
    """The next entries of a directory: name, inode number, type (DT_*), offset of the next."""
    length = _getdents64(fd, _dents_at, _DENTS_BYTES)
    if length < 0:
        raise _fail()
    raw = ctypes.string_at(_dents_at, length)
    entries: list[tuple[bytes, int, int, int]] = []
    add, start, unpack, find = entries.append, 0, _DIRENT.unpack_from, raw.index
    while start < length:
        inode, offset, size, kind = unpack(raw, start)
        name = start + _NAME_AT
        add((raw[name : find(0, name)], inode, kind, offset))
        start += size
    return entries


def utimens(path: bytes, atime_ns: int | None, mtime_ns: int | None) -> None:
    """Set the times that are not None, following symlinks."""
    times = (ctypes.c_long * 4)()
    for i, value in enumerate((atime_ns, mtime_ns)):
        seconds, rest = (0, UTIME_OMIT) if value is None else divmod(value, 10**9)
        times[2 * i], times[2 * i + 1] = seconds, rest
    if _utimensat(-100, path, times, 0) != 0:
        raise _fail(path)


_FSOPEN, _FSCONFIG, _FSMOUNT, _FSPICK = 430, 431, 432, 433
_SET_FLAG, _SET_STRING, _CREATE, _RECONFIGURE = 0, 1, 6, 7
_CLOEXEC, _EMPTY_PATH = 1, 8
Options = dict[str, str | None]  # as in tmpfs(5) and ext4(5), None for an option without value


def detached(fs_type: str, options: Options) -> int:
    """A file system that is mounted nowhere: it is mounted as long as a descriptor of it is open.

    OSError EINVAL for an option that this kernel does not know."""
    context = _checked(_libc.syscall(_FSOPEN, fs_type.encode(), _CLOEXEC))
    try:
        _configure(context, options, _CREATE)
        return _checked(_libc.syscall(_FSMOUNT, context, _CLOEXEC, 0))
    finally:
        os.close(context)


def change_tmpfs(root: int, options: Options) -> None:
    """Change options of the tmpfs whose root directory `root` is open on.

    OSError EINVAL when it holds more than a new limit allows."""
    context = _checked(_libc.syscall(_FSPICK, root, b"", _CLOEXEC | _EMPTY_PATH))
    try:
        _configure(context, options, _RECONFIGURE)
    finally:
        os.close(context)


def _configure(context: int, options: Options, command: int) -> None:
    for key, value in options.items():
        kind, text = (_SET_FLAG, None) if value is None else (_SET_STRING, value.encode())
        _checked(_libc.syscall(_FSCONFIG, context, kind, key.encode(), text, 0), f"{key}={value}")
    _checked(_libc.syscall(_FSCONFIG, context, command, None, None, 0))


def _checked(result: int, what: object = None) -> int:
    if result < 0:
        raise _fail(what)
    return result


# These wait for a disk: others may work meanwhile.
_waiting = ctypes.CDLL(None, use_errno=True)


def syncfs(fd: int) -> None:
    """Write all that the file system still holds in memory to its disk.  OSError EIO, ENOSPC."""
    _checked(_waiting.syncfs(fd))
