"""memory: files in memory, on a tmpfs of their own that is mounted nowhere.

The kernel's tmpfs is the store.  It has every behaviour of a file system, exact limits and sparse
files; its descriptor lies in the fd store, so that tree and content outlive the worker.  When the
mount ends the last descriptor is closed, and all is gone at once.
"""

import logging
import os

from fused.errors import WorkerFailed
from fused.filesystems import syscalls
from fused.filesystems.passthrough import Passthrough
from fused.filesystems.survival import Features

log = logging.getLogger(__name__)
STORE = "store"


class Memory(Passthrough):
    """Options: `size`, bytes that content may take; `inodes`, how many files there may be.  None
    for either is tmpfs's own default, half of the machine's memory (pages)."""

    def __init__(self, size: int | None = None, inodes: int | None = None) -> None:
        super().__init__("", cache="exclusive")
        limits = {"size": size, "nr_inodes": inodes}
        self._limits = {key: str(value) for key, value in limits.items() if value is not None}

    @property
    def features(self) -> Features:
        return super().features._replace(threads=1)  # nothing blocks here: a second one is a loss

    def _open_root(self, descriptors: dict[str, int]) -> int:
        mount = descriptors.get(STORE)
        if mount is None:
            try:
                mount = syscalls.detached_tmpfs({"mode": "0755", "inode64": None, **self._limits})
            except OSError as error:
                what = f"{error.strerror} ({error.filename})"
                raise WorkerFailed(f"cannot make a tmpfs: {what}") from None
            self._record.keep(STORE, mount)
        root = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=mount)
        try:
            syscalls.change_tmpfs(root, {**self._limits})
        except OSError:
            log.error("size or inodes are less than the mount holds: the former limits stay")
        return root
