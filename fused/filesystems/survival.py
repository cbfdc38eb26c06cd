"""The optional second half of a file system's contract: to survive its worker.

The first half is `llfuse.Operations`.  A type that has `restore` too keeps its mount through any
death of its worker: a successor process makes a new instance from the same options, calls
`attach`, then `restore`, and goes on with the same kernel connection.  What the instance knew and
the successor has to know must be found again from the mount's `Record`, from descriptors kept in
the fd store, or from wherever the type keeps its data.
"""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol


class OpenHandle(Protocol):
    """A handle that was open: `flags` as for open(2), zero for a directory."""

    @property
    def fh(self) -> int: ...
    @property
    def node(self) -> int: ...
    @property
    def flags(self) -> int: ...
    @property
    def directory(self) -> bool: ...


class KnownInodes(Protocol):
    """The inodes whose lookup count is above zero (all but the root)."""

    def __contains__(self, node: int) -> bool: ...
    def __iter__(self) -> Iterator[int]: ...
    def key(self, node: int) -> bytes:
        """What `Survivor.key` said of the inode.  KeyError."""

    def has_key(self, node: int, key: bytes) -> bool:
        """Whether that is what `key` returns.  KeyError."""

    def unlinked(self, node: int) -> bool:
        """Whether this mount has removed the inode's last name, or a predecessor of this worker
        may have done so.  KeyError."""

    def place(self, node: int) -> tuple[int, bytes]:
        """The parent's inode and the name last seen.  KeyError."""

    def generation(self, node: int) -> int:
        """What the entry's `generation` has to be.  KeyError."""

    def rename(self, node: int, parent: int, name: bytes) -> None:
        """Note another place of the inode."""

    def reuse(self, node: int, key: bytes, parent: int, name: bytes) -> None:
        """The inode's number now stands for another file: from here on with a new generation."""


class Record(Protocol):
    """What fused keeps for the instance, and offers to its handlers."""

    @property
    def inodes(self) -> KnownInodes: ...

    def next_handle(self) -> int:
        """A file handle number never used before on this mount."""

    def open_handle(self, node: int, fd: int, flags: int, asked: bool, uid: int) -> int:
        """A file handle number, as `next_handle`, for a descriptor that is open on the inode with
        `flags` for user `uid`.  If the type has the feature PASSTHROUGH and the kernel can, it
        reads, writes and maps the file itself; not if everything is to be `asked` for."""

    def close_handle(self, fh: int) -> None:
        """A number that came from `open_handle` is being released."""

    def written(self, node: int) -> bool:
        """Whether the kernel may be writing to the inode's file without asking."""

    def open_handles(self, node: int) -> int:
        """How many files or directories are open on the inode."""

    def kills_privileges(self) -> bool:
        """Whether the request being served has to clear suid and sgid bits (an unprivileged write
        or open with O_TRUNC; FUSE_HANDLE_KILLPRIV_V2)."""

    def invalidate(self, node: int) -> None:
        """Have the kernel ask for the inode's attributes (and by them, data) again."""

    @property
    def waiting(self) -> AbstractContextManager[None]:
        """For `with`, around calls that may take long: like llfuse.lock_released, others serve
        meanwhile."""

    def keep(self, name: str, fd: int) -> None:
        """Put a descriptor where a successor finds it, in `restore`'s `descriptors`."""

    def drop(self, name: str) -> None:
        """Give such a descriptor up."""


class Survivor(Protocol):
    """What a type that survives has beside the handlers of `llfuse.Operations`."""

    def attach(self, record: Record, descriptors: dict[str, int]) -> None:
        """Called once, before anything else.  `descriptors` are those kept by a predecessor (of a
        mount that could not be resumed, too); the instance owns them from here on."""

    def restore(self, inodes: KnownInodes, handles: Iterable[OpenHandle]) -> None:
        """Make every known inode and open handle usable again.

        Raises anything when that is impossible: the mount is then made afresh."""

    def key(self, inode: int) -> bytes:
        """At most 512 bytes by which a successor finds the inode again.

        Asked once, in the request that made the inode known."""

    def peek(self, parent: int, name: bytes) -> int:
        """The inode that a name holds now, zero for none, counting no lookup.

        Asked before each request that changes names; by the answer a request that was carried out
        by a worker that died before replying is recognized and not done twice."""


class Features(NamedTuple):
    """What a type asks of the kernel: names of FUSE_INIT flags, and how many threads serve.

    `relieved`: its handlers wait in `Record.waiting` only, so that one thread at a time is enough
    while none waits."""

    flags: tuple[str, ...] = ("AUTO_INVAL_DATA",)
    threads: int = 1
    relieved: bool = False
