"""memory: files in memory, on a tmpfs of their own that is mounted nowhere.

The kernel's tmpfs is the store.  It has every behaviour of a file system, exact limits and sparse
files; its descriptor lies in the fd store, so that tree and content outlive the worker.  When the
mount ends the last descriptor is closed, and all is gone at once.

With `persist` the store is an ext4 in an image file instead, mounted nowhere in the same way: when
the mount ends, or the power, the image has what there was (`store`, `image`).
"""

import errno
import logging
import os
from typing import Any

import llfuse
from llfuse import FUSEError

from fused.errors import WorkerFailed
from fused.filesystems import syscalls
from fused.filesystems.image import BLOCK, Image, Limits
from fused.filesystems.openstore import OpenStore, more_time, root_of
from fused.filesystems.passthrough import WRITE_BACK, Passthrough
from fused.filesystems.store import Store
from fused.filesystems.survival import Features

log = logging.getLogger(__name__)
STORE, IMAGE, LIMITS = "store", "image", "limits"  # in the fd store
SMALL = 64 << 20  # bytes up to which there is no write-back: it tells too late what does not fit
BYTES_A_FILE, FEWEST_FILES = 16384, 4096  # for `inodes`, when not given


class Memory(Passthrough):
    """Options: `size`, bytes that content may take; `inodes`, how many files there may be.  None
    for either is tmpfs's own default, half of the machine's memory (pages).  `persist`, a
    directory for the image file in which all is kept; there `inodes` is one for 16 KiB of `size`.
    """

    def __init__(
        self, size: int | None = None, inodes: int | None = None, persist: str | None = None
    ) -> None:
        super().__init__("", cache="exclusive")
        self._size, self._inodes, self._persist = size, inodes, persist
        self._store: Store | None = None

    # -- opening ---------------------------------------------------------------------------------

    @property
    def features(self) -> Features:
        features = super().features
        if self._persist is None:  # nothing blocks: a second thread is a loss
            features = features._replace(threads=1)
        if self._size is not None and self._size <= SMALL:
            features = features._replace(flags=tuple(f for f in features.flags if f != WRITE_BACK))
        return features

    def _open_root(self, descriptors: dict[str, int]) -> int:
        kept = STORE in descriptors
        persistent = IMAGE in descriptors if kept else self._persist is not None
        if persistent != (self._persist is not None):
            log.warning("'persist' has changed, which takes an unmount: the store stays as it is")
        if not persistent:
            return self._open_tmpfs(descriptors)
        return self._open_kept(descriptors) if kept else self._open_image(descriptors)

    def _open_tmpfs(self, descriptors: dict[str, int]) -> int:
        given = {"size": self._size, "nr_inodes": self._inodes}
        limits = {key: str(value) for key, value in given.items() if value is not None}
        mounted = descriptors.get(STORE)
        if mounted is None:
            try:
                mounted = syscalls.detached("tmpfs", {"mode": "0755", "inode64": None, **limits})
            except OSError as error:
                what = f"{error.strerror} ({error.filename})"
                raise WorkerFailed(f"cannot make a tmpfs: {what}") from None
            self._record.keep(STORE, mounted)
        root = root_of(mounted)
        try:
            syscalls.change_tmpfs(root, {**limits})
        except OSError:
            log.error("size or inodes are less than the mount holds: the former limits stay")
        return root

    def _open_kept(self, descriptors: dict[str, int]) -> int:
        """Go on with a predecessor's store."""
        image = Image(descriptors[IMAGE], os.readlink(f"/proc/self/fd/{descriptors[IMAGE]}"), True)
        root = root_of(descriptors[STORE])
        self._store = Store(root, image, descriptors[LIMITS])
        self._store.apply(self._wanted())
        return root

    def _open_image(self, descriptors: dict[str, int]) -> int:
        """Mount the image, made when there is none, and keep what a successor needs."""
        for name in {IMAGE, LIMITS} & descriptors.keys():  # its lock is in our way
            os.close(descriptors.pop(name))
            self._record.drop(name)
        assert self._persist is not None
        wanted = self._wanted()
        opened = OpenStore.open(self._persist, wanted)
        if opened.store.errors():
            log.error("the store has errors: unmount, and run 'e2fsck -f %s'", opened.image.path)
        self._store = opened.store
        # The store comes last: who finds it finds all.
        for name, fd in ((IMAGE, opened.image.fd), (LIMITS, opened.kept), (STORE, opened.mounted)):
            self._record.keep(name, fd)
        return opened.root

    def _wanted(self) -> Limits:
        size = self._size or os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
        inodes = self._inodes or max(FEWEST_FILES, size // BYTES_A_FILE)
        return Limits(-(-size // BLOCK), inodes)

    # -- what differs from passthrough -----------------------------------------------------------

    def _as(self, ctx: Any) -> None:
        if self._store is not None and not self._store.left().inodes:
            raise FUSEError(errno.ENOSPC)
        super()._as(ctx)

    def statfs(self, ctx: Any) -> llfuse.StatvfsData:
        stat_ = super().statfs(ctx)
        if self._store is not None:
            left = self._store.left()
            stat_.f_blocks, stat_.f_files = self._store.shown()
            stat_.f_bfree = stat_.f_bavail = left.blocks
            stat_.f_ffree = stat_.f_favail = left.inodes
        return stat_

    def destroy(self) -> None:
        """Bring everything to the disk: what has been unmounted is complete there."""
        if self._store is None:
            return
        for name in (STORE, IMAGE, LIMITS):
            self._record.drop(name)
        with more_time():
            syscalls.syncfs(self._source.root)
