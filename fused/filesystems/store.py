"""The store of a persistent memory mount: an ext4 that is mounted nowhere, and its limits.

ext4 has more blocks and inodes than it was asked for.  What is too much of blocks it is told to
reserve (`reserved_clusters`, which holds for root too); inodes are counted here.  Numbers that
users see are those of the limits.
"""

import logging
import os
import struct

from fused.errors import WorkerFailed
from fused.filesystems import loop, syscalls
from fused.filesystems.image import BLOCK, Image, Limits

log = logging.getLogger(__name__)
_OWN_BLOCKS, _OWN_INODES = 2, 9  # of an empty ext4: root, resize inode; all reserved but the root
_LIMITS = struct.Struct("=QQ")
# The first 32 KiB of a block are not zeroed on the quiet: it would give space back to the disk.
_KNOBS = {"extent_max_zeroout_kb": 0}
_OPTIONS: syscalls.Options = {"errors": "remount-ro"}


class Store:
    """A mounted image; `root` is a descriptor of its root directory, which the caller closes.

    A successor learns the limits from `kept`, a descriptor that holds them.
    """

    def __init__(self, root: int, image: Image, kept: int) -> None:
        self._root, self._image, self._kept = root, image, kept
        self._device = loop.name_of(root)
        held = os.pread(kept, _LIMITS.size, 0)
        self.limits = Limits(*_LIMITS.unpack(held)) if held else None
        for name, value in _KNOBS.items():
            self._set(name, value)

    def used(self) -> Limits:
        """What is in use of either."""
        st = os.fstatvfs(self._root)
        return Limits(self._room(st) - st.f_bfree, st.f_files - _OWN_INODES - st.f_ffree)

    def left(self) -> Limits:
        """What may be used beside that."""
        assert self.limits is not None
        free = os.fstatvfs(self._root).f_bavail
        return Limits(free, max(0, self.limits.inodes - self.used().inodes))

    def shown(self) -> Limits:
        """The limits, or what is in use where that is more; notes of pieces are not in them."""
        assert self.limits is not None
        limits, used = self.limits, self.used()
        over = used.blocks > limits.blocks + limits.slack
        return Limits(used.blocks if over else limits.blocks, max(limits.inodes, used.inodes))

    def fits(self, wanted: Limits) -> bool:
        """Whether the image is large enough for such limits."""
        st = os.fstatvfs(self._root)
        enough = self._room(st) >= wanted.blocks + wanted.slack
        return enough and st.f_files - _OWN_INODES >= wanted.inodes

    def apply(self, wanted: Limits) -> None:
        """Have these limits hold; the log says why they do not.

        Where others hold already, these are refused, as tmpfs does, when less than what is in use.
        Else what is in use may be more, and nothing comes in until enough was removed.
        """
        used = self.used()
        if self.limits and (wanted.blocks < used.blocks or wanted.inodes < used.inodes):
            log.error("size or inodes are less than the mount holds: the former limits stay")
            wanted = self.limits
        if (room := self._good_for(wanted)) < wanted.blocks:
            if self.limits:
                log.error("the store grows to 'size' when it is mounted afresh")
            wanted = self.limits or wanted._replace(blocks=max(room, 1))
        st = os.fstatvfs(self._root)
        if wanted.inodes > (inodes := st.f_files - _OWN_INODES):
            if self.limits:
                log.error("'inodes' is %d until the store is mounted afresh", inodes)
            wanted = wanted._replace(inodes=inodes)
        self._set("reserved_clusters", self._room(st) - wanted.blocks)
        self.limits = wanted
        os.pwrite(self._kept, _LIMITS.pack(*wanted), 0)

    @staticmethod
    def _room(st: os.statvfs_result) -> int:
        """How many blocks of content there are or could be, with none reserved."""
        return st.f_blocks - _OWN_BLOCKS

    def _good_for(self, wanted: Limits) -> int:
        """The blocks of content that the image is good for."""
        return self._room(os.fstatvfs(self._root)) - wanted.slack

    def _set(self, name: str, value: int) -> None:
        with open(f"/sys/fs/ext4/{self._device}/{name}", "w", encoding="ascii") as file:
            file.write(str(value))

    def errors(self) -> int:
        """How many errors ext4 has found in itself since it was last repaired."""
        with open(f"/sys/fs/ext4/{self._device}/errors_count", encoding="ascii") as file:
            return int(file.read())


def mount(image: Image) -> int:
    """Mount an image nowhere; the descriptor of the mount.  WorkerFailed, with the way out."""
    device, name = loop.attach(image.fd, BLOCK, image.path)
    try:
        return syscalls.detached("ext4", {"source": f"/dev/{name}", **_OPTIONS})
    except OSError as error:
        raise WorkerFailed(
            f"cannot mount the store {image.path}: {error.strerror}; see what is wrong with it, "
            f"and repair it, with 'e2fsck -f {image.path}'"
        ) from None
    finally:
        os.close(device)
