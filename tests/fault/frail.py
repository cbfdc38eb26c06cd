"""A file system whose handlers get stuck, or whose worker's threads fail, when they are told to.

It is `memory`; a directory outside of the mount, its option `gates`, says what goes wrong:
`mkdir NAME` waits while there is a gate `NAME`, for "hold" without ever releasing the interpreter;
while there is a gate "restore" every successor dies of it; `setfattr -n user.raise -v THREAD`
raises an exception in that thread.
"""

import ctypes
import os
import signal
import threading
import time
from collections.abc import Iterable
from typing import Any

from llfuse import EntryAttributes

from fused.filesystems.memory import Memory
from fused.filesystems.survival import KnownInodes, OpenHandle

_holding = ctypes.PyDLL(None)  # its functions are called without releasing the interpreter


class Frail(Memory):
    def __init__(self, gates: str) -> None:
        super().__init__()
        self._gates = gates

    def _closed(self, gate: str) -> bool:
        return os.path.exists(os.path.join(self._gates, gate))

    def restore(self, inodes: KnownInodes, handles: Iterable[OpenHandle]) -> None:
        if self._closed("restore"):
            os.kill(os.getpid(), signal.SIGKILL)
        super().restore(inodes, handles)

    def mkdir(self, parent: int, name: bytes, mode: int, ctx: Any) -> EntryAttributes:
        while self._closed(os.fsdecode(name)):
            if name == b"hold":
                _holding.sleep(1000)
            time.sleep(0.01)
        return super().mkdir(parent, name, mode, ctx)

    def setxattr(self, inode: int, name: bytes, value: bytes, ctx: Any) -> None:
        if name == b"user.raise":
            for thread in threading.enumerate():
                if thread.name == value.decode():
                    error = ctypes.py_object(RuntimeError)
                    ident = ctypes.c_ulong(thread.ident or 0)
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(ident, error)
        super().setxattr(inode, name, value, ctx)
