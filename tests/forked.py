"""Functions run in a process of their own: with a time limit, or as somebody else.

A mount under test may hang, and who touches a hung mount hangs with it.  So whatever touches one
runs in a child, and the child can be given up.
"""

import os
import pickle
import select
import signal
import struct
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NoReturn, TypeVar

Result = TypeVar("Result")


class Stuck(AssertionError):
    """A child did not finish within its time."""


class Died(AssertionError):
    """A child was ended by a signal, which is `signal`."""

    def __init__(self, number: int) -> None:
        super().__init__(f"the child died of {signal.Signals(number).name}")
        self.signal = number


def in_child(
    function: Callable[..., Result],
    *arguments: Any,
    limit: float = 30.0,
    rescue: Callable[[], None] | None = None,
) -> Result:
    """What `function(*arguments)` returns or raises in a forked child.

    After `limit` seconds the child and its descendants are killed; `rescue` is called when that
    does not end them (it should abort the mount that they hang on).  Then Stuck is raised.
    """
    return _Child(function, arguments, leader=True).outcome(limit, rescue)


def as_user(uid: int, gid: int, groups: Sequence[int], function: Callable[[], Result]) -> Result:
    """What `function()` returns or raises in a child with this identity and no privilege."""

    def call() -> Result:
        os.setgroups(list(groups))
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
        return function()

    return _Child(call, (), leader=False).outcome(20.0, None)


class _Child:
    def __init__(self, function: Callable[..., Any], arguments: Any, leader: bool) -> None:
        self.name = getattr(function, "__name__", str(function))
        self.leader = leader
        self.reader, writer = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # fork beside threads, from 3.12
            self.pid = os.fork()
        if self.pid == 0:
            _answer(writer, function, arguments, leader)
        os.close(writer)

    def outcome(self, limit: float, rescue: Callable[[], None] | None) -> Any:
        deadline = time.monotonic() + limit
        try:
            message = self._message(deadline)
            status = self._reap(deadline) if message is not None else None
            if status is None:
                self._give_up(rescue)
                raise Stuck(f"{self.name} did not finish within {limit:g} s")
        finally:
            os.close(self.reader)
        if os.WIFSIGNALED(status):
            raise Died(os.WTERMSIG(status))
        value, error, text = pickle.loads(message or b"")
        if error is None:
            return value
        error.add_note(text)
        raise error

    def _message(self, deadline: float) -> bytes | None:
        """All that the child wrote: b"" when it died first, None when the time was over first."""
        data = b""
        while len(data) < 8 or len(data) < 8 + struct.unpack_from("<Q", data)[0]:
            rest = max(0.0, deadline - time.monotonic())
            if not select.select([self.reader], [], [], rest)[0]:
                return None
            piece = os.read(self.reader, 1 << 20)
            if not piece:
                return b""
            data += piece
        return data[8:]

    def _reap(self, deadline: float) -> int | None:
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return status
            if time.monotonic() > deadline:
                return None
            time.sleep(0.0005)

    def _give_up(self, rescue: Callable[[], None] | None) -> None:
        with suppress(ProcessLookupError):
            (os.killpg if self.leader else os.kill)(self.pid, signal.SIGKILL)
        if self._reap(time.monotonic() + 1.0) is None and rescue is not None:
            rescue()
            self._reap(time.monotonic() + 5.0)


def _answer(writer: int, function: Callable[..., Any], arguments: Any, leader: bool) -> NoReturn:
    try:
        if leader:
            os.setpgid(0, 0)
        outcome: tuple[Any, BaseException | None, str]
        try:
            outcome = function(*arguments), None, ""
        except BaseException as error:
            outcome = None, error, "in the child:\n" + traceback.format_exc()
        try:
            data = pickle.dumps(outcome)
            pickle.loads(data)
        except Exception:
            data = pickle.dumps((None, AssertionError(repr(outcome[:2])), outcome[2]))
        data = struct.pack("<Q", len(data)) + data
        while data:
            data = data[os.write(writer, data) :]
    finally:
        os._exit(0)
