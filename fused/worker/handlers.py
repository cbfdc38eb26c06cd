"""The handlers that note more than their beginning and end: names, lookup counts, open handles.

Each `wrap_NAME(function)` gives the body of operation NAME around the file system's own handler.
Whatever a lost reply would have told the kernel is noted before it is done, so that a successor
can take it back; what names held is noted before they are changed, so that a successor whose
predecessor was killed in between can tell whether the change was made.
"""

import errno
import os
from collections.abc import Callable, Iterable
from typing import Any

import llfuse
from llfuse import EntryAttributes, FUSEError

from fused.ledger import layout as at
from fused.ledger.layout import COUNTED, COUNTED_AFTER, COUNTED_NODE, COUNTING, UNIQUE
from fused.ledger.writer import Ledger
from fused.worker.lanes import Lanes

Handler = Callable[..., Any]


class NotingHandlers:
    """The handlers of one mount.  `swallow` takes an exception that nobody waits for."""

    def __init__(
        self, fs: Any, ledger: Ledger, lanes: Lanes, swallow: Callable[[str, BaseException], Any]
    ) -> None:
        self.fs, self.ledger, self._local = fs, ledger, lanes.local
        self._swallow = swallow
        self._survivor = hasattr(fs, "restore")
        self._key = fs.key if self._survivor else _no_key

    def around(self, name: str, function: Handler) -> Handler:
        """The body of operation `name`, which calls `function`."""
        wrap = getattr(self, f"wrap_{name}", None)
        return wrap(function) if wrap else function

    # -- lookup counts and handles ---------------------------------------------------------------

    def _count(self, entry: Any, parent: int, name: bytes) -> None:
        """Note that the reply with `entry` adds one lookup."""
        node = entry.st_ino
        if node <= 1:
            return
        slot, inodes = self._local.lane.slot, self.ledger.inodes
        known = node in inodes.rows
        slot[COUNTED_NODE] = node
        slot[COUNTED_AFTER] = inodes.count(node) + 1 if known else 1
        slot[COUNTING] = unique = slot[UNIQUE]
        if known:
            inodes.increment(node)
        else:
            inodes.add(node, self._key(node), parent, name, entry.st_nlink)
        slot[COUNTED] = unique

    def _open(self, fh: int, node: int, flags: int, directory: bool) -> int:
        slot = self._local.lane.slot
        slot[at.OPENED_HANDLE] = fh << 1 | directory
        slot[at.OPENED] = slot[at.UNIQUE]
        self.ledger.handles.add(fh, node, flags, directory)
        return fh

    def _before(self, *places: tuple[int, bytes]) -> tuple[int, int] | None:
        """Note the intent to change names: what they hold before.

        Returns what they held before the first attempt when this is another one, else None."""
        if not self._survivor:
            return None
        slot = self._local.lane.slot
        if slot[at.INTENT] == slot[at.UNIQUE]:
            return slot[at.BEFORE], slot[at.BEFORE_TARGET]
        slot[at.BEFORE] = self.fs.peek(*places[0])
        slot[at.BEFORE_TARGET] = self.fs.peek(*places[1]) if len(places) > 1 else 0
        slot[at.INTENT] = slot[at.UNIQUE]
        return None

    def _held(self) -> tuple[int, int]:
        """What the intent of this request says of the names before it."""
        slot = self._local.lane.slot
        return (slot[at.BEFORE], slot[at.BEFORE_TARGET]) if self._survivor else (0, 0)

    # -- handlers with notes of their own --------------------------------------------------------

    def wrap_lookup(self, function: Handler) -> Handler:
        def lookup(parent: int, name: bytes, ctx: Any) -> EntryAttributes:
            entry: EntryAttributes = function(parent, name, ctx)
            self._count(entry, parent, name)
            return entry

        return lookup

    def _made(self, function: Handler) -> Handler:

        def make(parent: int, name: bytes, *rest: Any) -> EntryAttributes:
            before = self._before((parent, name))
            if before is not None and not before[0] and self.fs.peek(parent, name):
                entry: EntryAttributes = self.fs.lookup(parent, name, rest[-1])
            else:
                entry = function(parent, name, *rest)
            self._count(entry, parent, name)
            return entry

        return make

    wrap_mkdir = wrap_mknod = wrap_symlink = _made

    def wrap_link(self, function: Handler) -> Handler:
        def link(inode: int, parent: int, name: bytes, ctx: Any) -> EntryAttributes:
            before = self._before((parent, name))
            if before is not None and not before[0] and self.fs.peek(parent, name) == inode:
                entry: EntryAttributes = self.fs.lookup(parent, name, ctx)
            else:
                entry = function(inode, parent, name, ctx)
            self._count(entry, parent, name)
            self.ledger.inodes.note_links(entry.st_ino, entry.st_nlink)
            return entry

        return link

    def wrap_create(self, function: Handler) -> Handler:
        def create(parent: int, name: bytes, mode: int, flags: int, ctx: Any) -> Any:
            before = self._before((parent, name))
            if before is not None and not before[0]:
                flags &= ~os.O_EXCL  # if it is there, the first attempt made it
            fh, entry = function(parent, name, mode, flags, ctx)
            self._count(entry, parent, name)
            self._open(fh, entry.st_ino, flags, False)
            return fh, entry

        return create

    def _removed(self, function: Handler, directory: bool) -> Handler:
        inodes = self.ledger.inodes

        def remove(parent: int, name: bytes, ctx: Any) -> None:
            before = self._before((parent, name))
            if before is None or not before[0] or self.fs.peek(parent, name) == before[0]:
                function(parent, name, ctx)
            inodes.drop_link(self._held()[0], directory=directory)

        return remove

    def wrap_unlink(self, function: Handler) -> Handler:
        return self._removed(function, False)

    def wrap_rmdir(self, function: Handler) -> Handler:
        return self._removed(function, True)

    def wrap_rename(self, function: Handler) -> Handler:
        inodes = self.ledger.inodes

        def rename(old: int, name: bytes, new: int, new_name: bytes, ctx: Any) -> None:
            before = self._before((old, name), (new, new_name))
            moved, replaced = self._held()
            done = (
                before is not None
                and moved not in (0, replaced)
                and self.fs.peek(old, name) != moved
                and self.fs.peek(new, new_name) == moved
            )
            if not done:
                function(old, name, new, new_name, ctx)
            if moved != replaced:
                inodes.rename(moved, new, new_name)
                inodes.drop_link(replaced, directory=False)

        return rename

    def wrap_open(self, function: Handler) -> Handler:
        def open_(inode: int, flags: int, ctx: Any) -> int:
            return self._open(function(inode, flags, ctx), inode, flags, False)

        return open_

    def wrap_opendir(self, function: Handler) -> Handler:
        def opendir(inode: int, ctx: Any) -> int:
            return self._open(function(inode, ctx), inode, 0, True)

        return opendir

    def _released(self, function: Handler, directory: bool) -> Handler:
        handles = self.ledger.handles

        def release(fh: int) -> None:
            if (fh, directory) in handles:  # else the first attempt has done it
                try:
                    function(fh)
                finally:
                    handles.remove(fh, directory)

        return release

    def wrap_release(self, function: Handler) -> Handler:
        return self._released(function, False)

    def wrap_releasedir(self, function: Handler) -> Handler:
        return self._released(function, True)

    def wrap_forget(self, function: Handler) -> Handler:
        ledger, local = self.ledger, self._local

        def forget(forgotten: Iterable[tuple[int, int]]) -> None:
            items = list(forgotten)
            ledger.forget(local.lane.slot, items)
            try:
                if items[0][1]:  # fused's own, to wake a thread, forgets nothing
                    function(items)
            except BaseException as error:  # nobody waits for an answer, and llfuse would end
                self._swallow("forget", error)

        return forget

    def wrap_getxattr(self, function: Handler) -> Handler:
        def getxattr(inode: int, name: bytes, ctx: Any = None) -> bytes:
            # Without ctx llfuse asks on behalf of setxattr with XATTR_CREATE or XATTR_REPLACE.
            if ctx is None and self._survivor:
                slot = self._local.lane.slot
                if slot[at.INTENT] == slot[at.UNIQUE]:
                    if not slot[at.BEFORE]:
                        raise FUSEError(errno.ENODATA)
                    return b""
                slot[at.BEFORE] = _has_xattr(function, inode, name)
                slot[at.INTENT] = slot[at.UNIQUE]
            value: bytes = function(inode, name, ctx)
            return value

        return getxattr

    def wrap_removexattr(self, function: Handler) -> Handler:
        def removexattr(inode: int, name: bytes, ctx: Any) -> None:
            if not self._survivor:
                function(inode, name, ctx)
                return
            slot = self._local.lane.slot
            if slot[at.INTENT] != slot[at.UNIQUE]:
                slot[at.BEFORE] = _has_xattr(self.fs.getxattr, inode, name)
                slot[at.INTENT] = slot[at.UNIQUE]
            elif slot[at.BEFORE] and not _has_xattr(self.fs.getxattr, inode, name):
                return
            function(inode, name, ctx)

        return removexattr

    def wrap_statfs(self, function: Handler) -> Handler:
        def statfs(ctx: Any) -> llfuse.StatvfsData:
            try:
                stat: llfuse.StatvfsData = function(ctx)
            except FUSEError as error:
                if error.errno != errno.ENOSYS:
                    raise
                stat = llfuse.StatvfsData()
                stat.f_bsize = stat.f_frsize = 4096
            if not stat.f_namemax:
                stat.f_namemax = 255
            return stat

        return statfs


def _no_key(_inode: int) -> bytes:
    return b""


def _has_xattr(getxattr: Handler, inode: int, name: bytes) -> bool:
    try:
        getxattr(inode, name, None)
    except (FUSEError, OSError):
        return False
    return True
