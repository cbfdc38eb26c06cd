"""llfuse attached to a connection that it did not make.

llfuse is unpatched.  It is given a throw-away mount, left once the handshake there is done, and
its descriptor is then replaced: first by one end of a socket pair, whose other end is ours to feed
requests through, then by the connection itself.  The stand-in serves three ends: the worker asks
itself for the root's attributes before it says READY; the requests of a dead predecessor are
served one by one before all others; and while every thread waits in read(2), /proc tells the
address of its request buffer, so that handlers see what llfuse hides of a request (its `unique`,
its flags).
"""

import contextlib
import ctypes
import os
import socket
import struct
import threading
import time
from collections.abc import Iterator

import llfuse

from fused.errors import WorkerFailed
from fused.ledger import requests
from fused.ledger.layout import OWN_UNIQUE
from fused.worker import connection as wire

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, LARGE_OBJECT = -1, -3, 32 << 20  # mallopt(3)
READ, READDIR = 15, 28  # opcodes
LARGEST_REPLY = 128 << 10  # that the stand-in is asked to carry
READ_SYSCALLS = ("0", "63")  # x86-64; aarch64 and riscv64
ANSWER_LIMIT = 10.0  # seconds for the root to answer
_WAKE = wire.IN_HEADER.pack(48, 2, OWN_UNIQUE, 1, 0, 0, 0, 0, 0) + struct.pack(
    "<Q", 0
)  # forget nothing


_mallopt, _malloc, _free = (getattr(ctypes.CDLL(None), n) for n in ("mallopt", "malloc", "free"))
_malloc.restype = ctypes.c_void_p
_free.argtypes = (ctypes.c_void_p,)


def _give_buffers_pages_of_their_own() -> None:
    """Have malloc(3) mmap whatever is as large as a request buffer, by plugging larger holes."""
    _mallopt(M_MMAP_THRESHOLD, requests.BYTES // 2)
    while not requests.mapped_size(address := _malloc(requests.BYTES)):
        pass
    _free(address)


class _Attached(Exception):
    """Leaves llfuse.main() after libfuse's handshake with the throw-away mount."""


def _leave() -> None:
    raise _Attached


def _fuse_descriptors() -> set[int]:
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/self/fd/{name}") == "/dev/fuse":
                found.add(int(name))
    return found


@contextlib.contextmanager
def _thrown_away(operations: llfuse.Operations) -> Iterator[None]:
    """llfuse initialised on a mount that only a thread sees, and that ends with it: a worker that
    is killed leaves nothing of it behind, and systemd never hears of it."""
    mounted, done = threading.Event(), threading.Event()
    problems: list[Exception] = []

    def hold() -> None:
        try:
            wire.enter_private_mount_namespace()
            llfuse.init(operations, "/tmp", {"fsname=fused-attach", "no_splice_read", "nonempty"})
        except Exception as error:
            problems.append(error)
        mounted.set()
        done.wait()

    thread = threading.Thread(target=hold, name="throw-away mount", daemon=True)
    thread.start()
    mounted.wait()
    try:
        for problem in problems:
            raise problem
        yield
    finally:
        done.set()
        thread.join()


class Session:
    """One llfuse, attached to `fd` (which stays ours) with that many threads.

    `serve` runs in the main thread until the connection ends.  Meanwhile another thread calls
    `learn_buffers`, then `ask` as often as it likes, then `connect`.
    """

    def __init__(self, operations: llfuse.Operations, fd: int, threads: int) -> None:
        self._fd, self._threads = fd, threads
        self._number = self._attach(operations)
        self._standin, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for sock in (self._standin, theirs):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        with theirs:
            os.dup2(theirs.fileno(), self._number, inheritable=False)

    @staticmethod
    def _attach(operations: llfuse.Operations) -> int:
        """Bring libfuse past its handshake; returns the number of its descriptor."""
        before = _fuse_descriptors()
        try:
            operations.init = _leave  # type: ignore[method-assign]
            with _thrown_away(operations):
                with contextlib.suppress(_Attached):
                    llfuse.main(workers=1, handle_signals=False)
                (number,) = _fuse_descriptors() - before
                return number
        except (RuntimeError, OSError) as error:
            raise WorkerFailed(f"cannot attach llfuse: {error}; is /dev/fuse usable?") from None
        finally:
            del operations.init

    def serve(self) -> None:
        """Process requests until the connection ends (ENODEV: unmounted or aborted)."""
        _give_buffers_pages_of_their_own()
        llfuse.main(workers=self._threads, handle_signals=False)

    def waiting_threads(self) -> dict[int, int]:
        """The threads that wait for a request in read(2), with the address of their buffers."""
        found = {}
        for task in os.listdir("/proc/self/task"):
            try:
                with open(f"/proc/self/task/{task}/syscall", encoding="ascii") as file:
                    call = file.read().split()
            except OSError:
                continue
            if call[0] in READ_SYSCALLS and int(call[1], 16) == self._number:
                found[int(task)] = int(call[2], 16)
        return found

    def learn_buffers(self) -> dict[int, int]:
        """Wait until every thread waits for a request: by native id, where its buffer is."""
        deadline = time.monotonic() + ANSWER_LIMIT
        while len(buffers := self.waiting_threads()) < self._threads:
            if time.monotonic() > deadline:
                raise WorkerFailed("cannot attach llfuse: its threads do not read requests")
            time.sleep(0.0002)
        _mallopt(M_MMAP_THRESHOLD, LARGE_OBJECT)
        _mallopt(M_TRIM_THRESHOLD, LARGE_OBJECT)  # else each large read faults its pages in again
        return buffers

    def ask(self, request: bytes, timeout: float | None = None) -> list[bytes]:
        """Have llfuse serve one request: its reply, last, unless it is one that has none.

        Replies before it belong to interrupts (libfuse answers them when it likes).
        WorkerFailed when nothing has come after `timeout` seconds."""
        _, opcode, unique, *_ = wire.IN_HEADER.unpack_from(request)
        if opcode == READDIR and struct.unpack_from("<I", request, 56)[0] > LARGEST_REPLY:
            request = request[:56] + struct.pack("<I", LARGEST_REPLY) + request[60:]
        self._standin.settimeout(timeout)
        self._standin.send(request)
        replies: list[bytes] = []
        if opcode in wire.NO_REPLY_OPCODES:
            return replies
        try:
            while not replies or wire.OUT_HEADER.unpack_from(replies[-1])[2] != unique:
                replies.append(self._standin.recv(LARGEST_REPLY * 2))
        except TimeoutError:
            raise WorkerFailed(f"the file system did not answer within {timeout:.0f} s") from None
        return replies

    def ask_root(self) -> None:
        """Ask for the root's attributes.  WorkerFailed when the answer is an error or none."""
        header = wire.IN_HEADER.pack(56, wire.GETATTR_OPCODE, OWN_UNIQUE, 1, 0, 0, 0, 0, 0)
        reply = self.ask(header + bytes(16), ANSWER_LIMIT)[-1]
        _, error, _ = wire.OUT_HEADER.unpack_from(reply)
        if error:
            raise WorkerFailed(f"the root directory answers {os.strerror(-error)!r}")

    def connect(self) -> None:
        """Put the connection in the stand-in's place: now the kernel feeds the threads."""
        while len(self.waiting_threads()) < self._threads:
            time.sleep(0.0001)
        os.dup2(self._fd, self._number, inheritable=False)
        for _ in range(self._threads):  # each takes one and reads the connection next
            self._standin.send(_WAKE)
        self._standin.close()
