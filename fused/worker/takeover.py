"""Going on with the connection of a dead worker.

Order matters, because this process may be killed as well, at any point: first the kernel is asked
for the requests that were read and not answered, then what their lost replies had counted is taken
back, then the file system is restored, and then these requests are served, one by one, before all
others.  Until a request is answered its slot in the ledger stays.
"""

import errno
import fcntl
import logging
import os
import struct
from typing import Any, NamedTuple

import llfuse
from llfuse import FUSEError

from fused.errors import WorkerFailed
from fused.ledger import layout as at
from fused.ledger.layout import OPERATIONS, SLOTS
from fused.ledger.writer import Ledger, Unfinished
from fused.spec import MountSpec
from fused.worker import connection as wire
from fused.worker.interposer import Interposer
from fused.worker.lanes import MASK, OWN_SLOT
from fused.worker.session import LARGEST_REPLY, READ, Session

log = logging.getLogger("fused.worker")
POISON_ATTEMPTS = 3


class Inheritance(NamedTuple):
    """What a dead worker left: its ledger, requests to be served again, others read on the way."""

    ledger: Ledger
    resent: list[bytes]
    others: list[bytes]
    lost: dict[int, Unfinished]

    def interrupted(self) -> list[str]:
        """The operations that handlers were working on when the worker ended."""
        return [
            OPERATIONS[notes.operation]
            for notes in self.lost.values()
            if notes.running and notes.operation < len(OPERATIONS)
        ]


def obstacle(mount: MountSpec, fs: Any) -> str:
    """Why no mount of this kind is ever resumed; empty when there is no reason."""
    if mount.on_crash != "resume":
        return f"'on_crash' is {mount.on_crash!r}"
    if not hasattr(fs, "restore"):
        return f"type {mount.type!r} cannot restore what its worker knew"
    return ""


def inherit(mount: MountSpec, fs: Any, fd: int, path: str, requests: int | None) -> Inheritance:
    """Take over the connection `fd`, the ledger at `path`, and its request buffers.

    WorkerFailed or LedgerDamaged when the mount cannot go on: it has to be made afresh."""
    if reason := obstacle(mount, fs):
        raise WorkerFailed(reason)
    if not wire.alive(fd):
        raise WorkerFailed("the connection was aborted")
    try:
        ledger = Ledger.adopt(path, requests)
    except FileNotFoundError:
        raise WorkerFailed("its ledger is gone") from None
    if not ledger.features & wire.HAS_RESEND:
        raise WorkerFailed("the kernel cannot deliver requests again (Linux 6.9 can)")
    ledger.settle()
    begun = [number for number in range(SLOTS) if ledger.slot(number)[at.SINCE_NS]]
    for number in (*begun, *range(SLOTS)):  # one may be half done: it comes before all others
        _finish_forget(ledger, number)
    resent, others = _read_again(ledger, fd)
    again = {_unique(request) & MASK for request in resent}
    lost = {unique: notes for unique, notes in ledger.unfinished().items() if unique in again}
    for notes in lost.values():
        ledger.take_back(notes)
    return Inheritance(ledger, resent, others, lost)


def _finish_forget(ledger: Ledger, number: int) -> None:
    """If a slot's buffer holds a FORGET, do what is not done of it: the kernel sends it once."""
    message = ledger.requests[number]
    items = wire.forgets(message)
    if items is not None:
        ledger.finish_forget(number, message[8:16].cast("Q")[0], items)


def _read_again(ledger: Ledger, fd: int) -> tuple[list[bytes], list[bytes]]:
    """Ask the kernel for what was read and not answered (FUSE_NOTIFY_RESEND) and read all of it.

    Returns these requests in their order, and what else was read on the way but FORGETs, which
    are carried out at once.  ENODEV when the connection has ended."""
    wire.resend(fd)
    resent: list[bytes] = []
    others: list[bytes] = []
    buffer = ledger.requests[OWN_SLOT]
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    fcntl.fcntl(fd, fcntl.F_SETFL, flags | os.O_NONBLOCK)
    try:
        while True:
            try:
                length = os.readv(fd, [buffer])
            except OSError as error:
                if error.errno == errno.EAGAIN:
                    break
                if error.errno in (errno.EINTR, errno.ENOENT):  # ENOENT: its client has gone
                    continue
                raise
            if wire.forgets(buffer) is not None:
                _finish_forget(ledger, OWN_SLOT)
                continue
            request = bytes(buffer[:length])
            _, opcode, unique, *_ = wire.IN_HEADER.unpack_from(request)
            (resent if unique & wire.RESENT else others).append(request)
            if not unique & wire.RESENT and opcode != wire.INTERRUPT:
                break
    finally:
        fcntl.fcntl(fd, fcntl.F_SETFL, flags)
    return resent, others


def _unique(request: bytes) -> int:
    unique: int = wire.IN_HEADER.unpack_from(request)[2]
    return unique


def serve_resent(heir: Inheritance, session: Session, interposer: Interposer, fd: int) -> None:
    """Have the requests of the dead worker answered."""
    for request in (*heir.others, *heir.resent):
        _, opcode, unique, *_ = wire.IN_HEADER.unpack_from(request)
        notes = heir.lost.get(unique & MASK)
        if notes is not None and notes.attempts + notes.running >= POISON_ATTEMPTS:
            replies = [_poisoned(interposer, notes, unique)]
        elif opcode == READ and struct.unpack_from("<I", request, 56)[0] > LARGEST_REPLY:
            replies = [_read(interposer, request)]
        else:
            replies = session.ask(request)
        for reply in replies:
            try:
                os.write(fd, reply)
            except OSError as error:
                if error.errno != errno.ENOENT:  # ENOENT: its client has gone
                    raise


def _poisoned(interposer: Interposer, notes: Unfinished, unique: int) -> bytes:
    """A request that has ended or stuck its worker each time: it gets EIO, the mount lives on."""
    name = OPERATIONS[notes.operation] if notes.operation < len(OPERATIONS) else "request"
    log.error("%s has ended its worker %d times: it is answered EIO", name, POISON_ATTEMPTS)
    interposer.lanes.lost.pop(notes.unique, None)
    interposer.ledger.clear_slot(notes.slot)
    return wire.OUT_HEADER.pack(16, -errno.EIO, unique)


def _read(interposer: Interposer, request: bytes) -> bytes:
    """A read whose reply would not fit through the stand-in's socket."""
    fh, offset, size = struct.unpack_from("<QQI", request, 40)
    unique = _unique(request)
    interposer.ledger.requests[OWN_SLOT][: len(request)] = request
    try:
        with llfuse.lock:
            data = bytes(interposer.read(fh, offset, size))
    except FUSEError as error:
        return wire.OUT_HEADER.pack(16, -error.errno, unique)
    return wire.OUT_HEADER.pack(16 + len(data), 0, unique) + data
