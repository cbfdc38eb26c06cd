"""Between llfuse and every file system: counts, times, notes, and turns exceptions into errors.

llfuse calls the interposer's handlers under its global lock; each notes in the serving thread's
request slot what it is about to do, calls the file system, and notes what came out.  The order of
stores is what makes a kill at any point recoverable; fused.ledger has the rules.
"""

import errno
import faulthandler
import logging
import os
import traceback
from collections.abc import Callable, Iterable, Iterator
from time import monotonic_ns
from typing import Any

import llfuse
from llfuse import EntryAttributes, FUSEError

from fused.errors import LedgerDamaged
from fused.ledger import layout as at
from fused.ledger.layout import OPERATIONS
from fused.ledger.writer import Ledger
from fused.worker import replies
from fused.worker.lanes import MASK, Lanes

log = logging.getLogger("fused.worker")
Handler = Callable[..., Any]


class Interposer(llfuse.Operations):
    """The operations that llfuse is given, in front of `fs`.

    `trusted` types return what they should; results of others are checked.  `on_damage` is called
    when the ledger turns out to be damaged: the mount cannot go on.
    """

    def __init__(
        self,
        fs: Any,
        ledger: Ledger,
        lanes: Lanes,
        trusted: bool,
        on_damage: Callable[[str], Any],
    ) -> None:
        self.fs, self.ledger, self.lanes = fs, ledger, lanes
        self._on_damage = on_damage
        self._local = lanes.local
        self._survivor = hasattr(fs, "restore")
        self._key = fs.key if self._survivor else _no_key
        self._seen: set[tuple[str, str]] = set()
        for name in OPERATIONS:
            function = getattr(fs, name)
            if not trusted:
                function = replies.checked(name, function)
            if name == "readdir":
                setattr(self, name, self._streamed(name, function))
            else:
                wrap = getattr(self, f"_wrap_{name}", None)
                setattr(self, name, self._handler(name, wrap(function) if wrap else function))

    # -- one request -----------------------------------------------------------------------------

    def _handler(self, name: str, function: Handler) -> Handler:
        index = OPERATIONS.index(name)
        counters = self.ledger.counters(index)
        local, lanes, failure = self._local, self.lanes, self._failure
        operation, subject, since, unique_ = at.OPERATION, at.SUBJECT, at.SINCE_NS, at.UNIQUE
        histogram, longest, errors = at.HISTOGRAM, at.LONGEST, at.ERRORS

        def handler(first: Any = 0, *rest: Any) -> Any:
            try:
                lane = local.lane
            except AttributeError:
                lane = lanes.enter()
            slot = lane.slot
            start = monotonic_ns()
            slot[operation] = index
            slot[subject] = first if type(first) is int else 0
            slot[since] = start
            unique = lane.request[1]
            slot[unique_] = unique & MASK
            if unique > MASK:
                lanes.resume(lane, unique & MASK)
            try:
                return function(first, *rest)
            except BaseException as error:
                counters[errors] += 1
                raise failure(name, error) from None
            finally:
                took = monotonic_ns() - start
                slot[since] = 0
                counters[histogram + took.bit_length()] += 1
                if took > counters[longest]:
                    counters[longest] = took

        return handler

    def _streamed(self, name: str, function: Handler) -> Handler:
        """readdir: the work is done while llfuse iterates, and it may stop early."""
        begin = self._handler(name, lambda fh, offset: iter(function(fh, offset)))
        failure, counters = self._failure, self.ledger.counters(OPERATIONS.index(name))

        def handler(fh: int, offset: int) -> Iterator[tuple[bytes, EntryAttributes, int]]:
            entries = begin(fh, offset)
            try:
                yield from entries
            except GeneratorExit:
                raise
            except BaseException as error:
                counters[at.ERRORS] += 1
                raise failure(name, error) from None

        return handler

    def _failure(self, name: str, error: BaseException) -> FUSEError:
        """The error that the caller gets: a number from 1 to 511."""
        if isinstance(error, LedgerDamaged):
            self._on_damage(str(error))
        number = error.errno if isinstance(error, FUSEError | OSError) else None
        if number is None or not 1 <= number <= 511:
            self._log_once(name, error)
            number = errno.EIO
        return FUSEError(number)

    def _log_once(self, name: str, error: BaseException) -> None:
        frames = traceback.extract_tb(error.__traceback__)
        where = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""
        if (key := (name, f"{type(error)} {where}")) not in self._seen:
            self._seen.add(key)
            log.error("%s failed with an unexpected exception; the caller gets EIO", name,
                      exc_info=error)  # fmt: skip

    # -- lookup counts and handles ---------------------------------------------------------------

    def _count(self, entry: Any, parent: int, name: bytes) -> None:
        """Note that the reply with `entry` adds one lookup."""
        node = entry.st_ino
        if node <= 1:
            return
        slot, inodes = self._local.lane.slot, self.ledger.inodes
        known = node in inodes.rows
        slot[at.COUNTED_NODE] = node
        slot[at.COUNTED_AFTER] = inodes.count(node) + 1 if known else 1
        slot[at.COUNTED] = slot[at.UNIQUE]
        if known:
            inodes.increment(node)
        else:
            inodes.add(node, self._key(node), parent, name, entry.st_nlink)

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
        held = [self.fs.peek(parent, name) for parent, name in places]
        slot[at.BEFORE] = held[0]
        slot[at.BEFORE_TARGET] = held[1] if len(held) > 1 else 0
        slot[at.INTENT] = slot[at.UNIQUE]
        return None

    def _held(self) -> tuple[int, int]:
        """What the intent of this request says of the names before it."""
        slot = self._local.lane.slot
        return (slot[at.BEFORE], slot[at.BEFORE_TARGET]) if self._survivor else (0, 0)

    # -- handlers with notes of their own --------------------------------------------------------

    def _wrap_lookup(self, function: Handler) -> Handler:
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

    _wrap_mkdir = _wrap_mknod = _wrap_symlink = _made

    def _wrap_link(self, function: Handler) -> Handler:
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

    def _wrap_create(self, function: Handler) -> Handler:
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

    def _wrap_unlink(self, function: Handler) -> Handler:
        return self._removed(function, False)

    def _wrap_rmdir(self, function: Handler) -> Handler:
        return self._removed(function, True)

    def _wrap_rename(self, function: Handler) -> Handler:
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

    def _wrap_open(self, function: Handler) -> Handler:
        def open_(inode: int, flags: int, ctx: Any) -> int:
            return self._open(function(inode, flags, ctx), inode, flags, False)

        return open_

    def _wrap_opendir(self, function: Handler) -> Handler:
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

    def _wrap_release(self, function: Handler) -> Handler:
        return self._released(function, False)

    def _wrap_releasedir(self, function: Handler) -> Handler:
        return self._released(function, True)

    def _wrap_forget(self, function: Handler) -> Handler:
        ledger, local = self.ledger, self._local

        def forget(forgotten: Iterable[tuple[int, int]]) -> None:
            items = list(forgotten)
            ledger.forget(local.lane.slot, items)
            try:
                if items[0][1]:  # fused's own, to wake a thread, forgets nothing
                    function(items)
            except BaseException as error:  # nobody waits for an answer, and llfuse would end
                self._failure("forget", error)

        return forget

    def _wrap_getxattr(self, function: Handler) -> Handler:
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

    def _wrap_removexattr(self, function: Handler) -> Handler:
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

    def _wrap_statfs(self, function: Handler) -> Handler:
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

    def stacktrace(self) -> None:
        """`setfattr -n fuse_stacktrace` on the root: llfuse wants the stacks in the log."""
        faulthandler.dump_traceback()

    def destroy(self) -> None:
        """The worker calls the file system's own `destroy` when it ends."""


def _no_key(_inode: int) -> bytes:
    return b""


def _has_xattr(getxattr: Handler, inode: int, name: bytes) -> bool:
    try:
        getxattr(inode, name, None)
    except (FUSEError, OSError):
        return False
    return True
