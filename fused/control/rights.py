"""Who may call what: the rights stand beside the methods, the caller comes from the socket."""

import contextlib
import grp
import socket
import struct
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

GROUP = "fused"
SO_PEERGROUPS = 59  # socket(7): the supplementary groups of the peer, as gid_t[]
_CREDENTIALS = struct.Struct("iII")

Method = TypeVar("Method", bound=Callable[..., Any])


class Peer(NamedTuple):
    """The process at the other end, as it was when it connected (SO_PEERCRED)."""

    pid: int
    uid: int
    groups: frozenset[int]

    def may_operate(self) -> bool:
        """Whether it is root or a member of the group `fused`."""
        return self.uid == 0 or _group() in self.groups


def of(sock: socket.socket) -> Peer:
    """The peer of a connected Unix socket."""
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, gid = _CREDENTIALS.unpack(raw)
    more = b""
    with contextlib.suppress(OSError):  # more than 256 groups: then none of them counts
        more = sock.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, 1024)
    return Peer(pid, uid, frozenset({gid, *struct.unpack(f"{len(more) // 4}I", more)}))


def anybody(method: Method) -> Method:
    """Mark a method that every user of the machine may call.  All others are for operators: root
    and the members of the group `fused`."""
    method.__dict__["open_to_anybody"] = True
    return method


def allowed(peer: Peer, method: Callable[..., Any]) -> bool:
    """Whether `peer` may call `method`."""
    return getattr(method, "open_to_anybody", False) or peer.may_operate()


def _group() -> int | None:
    with contextlib.suppress(KeyError):
        return grp.getgrnam(GROUP).gr_gid
    return None
