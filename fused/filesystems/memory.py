"""memory: files in memory, on a tmpfs of their own that is mounted nowhere.

The kernel's tmpfs is the store.  It has every behaviour of a file system, exact limits and sparse
files; its descriptor lies in the fd store, so that tree and content outlive the worker, and when the
mount ends the last descriptor is closed and all is gone at once.
"""

import os

from fused.errors import WorkerFailed
from fused.filesystems import syscalls
from fused.filesystems.passthrough import Passthrough
from fused.filesystems.survival import Record

STORE = "store"


class Memory(Passthrough):
    """Options: `size`, bytes that content may take; `inodes`, how many files there may be.  None
    for either is tmpfs's own default, half of the machine's memory (pages)."""

    def __init__(self, size: int | None = None, inodes: int | None = None) -> None:
        super().__init__("", cache="exclusive")
        self._limits = {"size": size, "nr_inodes": inodes}

    def _open_root(self, descriptors: dict[str, int]) -> int:
        mount = descriptors.get(STORE)
        if mount is None:
            limits = {key: str(value) for key, value in self._limits.items() if value is not None}
            try:
                mount = syscalls.detached_tmpfs({"mode": "0755", "inode64": None, **limits})
            except OSError as error:
                what = f"{error.strerror} ({error.filename})"
                raise WorkerFailed(f"cannot make a tmpfs: {what}") from None
            self._record.keep(STORE, mount)
        return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=mount)
