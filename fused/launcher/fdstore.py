"""The fd store (systemd's FileDescriptorStoreMax=): descriptors that outlive a worker."""

import contextlib
import fcntl
import os
import select
from collections.abc import Iterator

F_DUPFD_QUERY = 1027  # fcntl(2), linux/fcntl.h
FULL = 4096  # descriptors of one worker; more are closed at once


class FdStore:
    """Descriptors of one worker by name, in the order in which they came.

    Invariants: every descriptor in the store is open and close-on-exec; one whose other end is
    gone (it polls as error or hang-up: an aborted connection) is dropped by `expire`, which is due
    whenever `fileno` polls readable.
    """

    def __init__(self) -> None:
        self._entries: list[tuple[str, int]] = []
        self._poll = select.epoll()

    def __iter__(self) -> Iterator[tuple[str, int]]:
        return iter(list(self._entries))

    def __len__(self) -> int:
        return len(self._entries)

    def fileno(self) -> int:
        """A descriptor that polls readable when `expire` has something to do."""
        return self._poll.fileno()

    def add(self, name: str, fds: list[int]) -> None:
        """Take over `fds`; those that the store cannot hold, or holds already, are closed.  As
        with systemd it cannot hold O_PATH descriptors, because they cannot be polled."""
        for fd in fds:
            held = any(_same(fd, other) for _, other in self._entries)
            if held or len(self._entries) >= FULL or fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_PATH:
                os.close(fd)
                continue
            self._entries.append((name, fd))
            with contextlib.suppress(OSError):  # files and directories never hang up
                self._poll.register(fd, 0)  # nothing but EPOLLERR and EPOLLHUP

    def remove(self, name: str) -> None:
        """Drop all descriptors called `name`."""
        self._drop([entry for entry in self._entries if entry[0] == name])

    def expire(self) -> None:
        """Drop the descriptors whose other end is gone."""
        gone = {fd for fd, _ in self._poll.poll(0)}
        self._drop([entry for entry in self._entries if entry[1] in gone])

    def clear(self) -> None:
        """Drop everything."""
        self._drop(list(self._entries))

    def close(self) -> None:
        """Drop everything, for ever."""
        self.clear()
        self._poll.close()

    def _drop(self, entries: list[tuple[str, int]]) -> None:
        for entry in entries:
            self._entries.remove(entry)
            with contextlib.suppress(OSError):
                self._poll.unregister(entry[1])
            os.close(entry[1])


def _same(one: int, other: int) -> bool:
    """Whether two descriptors are copies of each other.  Kernels before 6.10 cannot say; there a
    copy is kept too, which costs a descriptor and nothing else."""
    try:
        return fcntl.fcntl(one, F_DUPFD_QUERY, other) == 1
    except OSError:
        return False
