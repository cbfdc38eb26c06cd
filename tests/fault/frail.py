"""A file system whose handlers get stuck, or whose worker's threads fail, when they are told to.

It is `memory`; a directory outside of the mount, its option `gates`, says what goes wrong:
`mkdir NAME` waits while there is a gate `NAME`, and holds the interpreter meanwhile when NAME
begins with "hold"; `setfattr -n user.raise -v THREAD` raises an exception in that thread.
"""

import ctypes
import os
import threading
import time
from typing import Any

from llfuse import EntryAttributes

from fused.filesystems.memory import Memory

_holding = ctypes.PyDLL(None)  # its functions are called without releasing the interpreter


class Frail(Memory):
    def __init__(self, gates: str) -> None:
        super().__init__()
        self._gates = gates

    def mkdir(self, parent: int, name: bytes, mode: int, ctx: Any) -> EntryAttributes:
        while os.path.exists(os.path.join(self._gates, os.fsdecode(name))):
            (_holding.sleep if name.startswith(b"hold") else time.sleep)(1)
        return super().mkdir(parent, name, mode, ctx)

    def setxattr(self, inode: int, name: bytes, value: bytes, ctx: Any) -> None:
        if name == b"user.raise":
            for thread in threading.enumerate():
                if thread.name == value.decode():
                    error = ctypes.py_object(RuntimeError)
                    ident = ctypes.c_ulong(thread.ident or 0)
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(ident, error)
        super().setxattr(inode, name, value, ctx)
