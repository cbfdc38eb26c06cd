"""The receiving end of sd_notify(3) for one worker."""

import array
import os
import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple

from fused.errors import FusedError

MESSAGE_BYTES = 4096
MESSAGE_FDS = 253  # SCM_MAX_FD, unix(7)
_CREDENTIALS = struct.Struct("3i")


class Message(NamedTuple):
    """One datagram: who sent it, its assignments, and the descriptors with it (owned by whoever
    holds the message)."""

    pid: int
    assignments: dict[str, str]
    fds: list[int]

    def close(self) -> None:
        """Close the descriptors."""
        for fd in self.fds:
            os.close(fd)


class NotifySocket:
    """A datagram socket at `path` for $NOTIFY_SOCKET."""

    def __init__(self, path: str) -> None:
        self.path = path
        if os.path.lexists(path):
            os.unlink(path)
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            self._sock.bind(path)
        except OSError as error:
            self._sock.close()
            raise FusedError(f"cannot listen on {path}: {error.strerror or error}") from None

    def fileno(self) -> int:
        """The socket's descriptor, for polling."""
        return self._sock.fileno()

    def close(self) -> None:
        """Close and remove the socket."""
        self._sock.close()
        if os.path.lexists(self.path):
            os.unlink(self.path)

    def receive(self) -> Iterator[Message]:
        """All messages that wait now."""
        space = socket.CMSG_SPACE(_CREDENTIALS.size) + socket.CMSG_SPACE(4 * MESSAGE_FDS)
        while True:
            try:
                data, ancillary, _, _ = self._sock.recvmsg(
                    MESSAGE_BYTES, space, socket.MSG_CMSG_CLOEXEC
                )
            except BlockingIOError:
                return
            pid, fds = 0, array.array("i")
            for level, kind, payload in ancillary:
                if level == socket.SOL_SOCKET and kind == socket.SCM_CREDENTIALS:
                    pid = _CREDENTIALS.unpack(payload)[0]
                elif level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                    fds.frombytes(payload[: len(payload) // 4 * 4])
            lines = data.decode("utf-8", "replace").splitlines()
            pairs = [line.partition("=") for line in lines if "=" in line]
            yield Message(pid, {key: value for key, _, value in pairs}, list(fds))
