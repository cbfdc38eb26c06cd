"""Serves Varlink to many clients, none of which can disturb another.

Rules of this file
- Each connection is one task that reads a call, answers it, and reads the next: a client that
  sends faster than it is answered waits in its own socket.
- Everything that a client may hold is bounded: connections of a user, bytes of a message, seconds
  for a message to arrive whole, seconds for an answer to be taken.
- What is no Varlink message at all ends the connection; what is one gets an answer.
"""

import asyncio
import contextlib
import json
import logging
import os
import socket
import stat
from collections import Counter
from collections.abc import Awaitable
from typing import Any, Self, TypeVar

from asyncvarlink import (
    AnnotatedResult,
    VarlinkErrorReply,
    VarlinkInterfaceRegistry,
    VarlinkMethodCall,
    VarlinkMethodReply,
    VarlinkMethodSignature,
)
from asyncvarlink.conversion import ConversionError
from asyncvarlink.serviceinterface import (
    InvalidParameter,
    PermissionDenied,
    VarlinkServiceInterface,
)

from fused import __version__, errors
from fused.control import interface, rights
from fused.control.interface import ManagerInterface, Operations
from fused.control.types import Holder

log = logging.getLogger(__name__)
Result = TypeVar("Result")

MESSAGE_BYTES = 1 << 20
MESSAGE_SECONDS = 30.0  # for a whole message to arrive, and for an answer to be taken
CONNECTIONS = 64  # of one user at a time


class Server:
    """An async context manager: entering it listens, leaving it ends all connections."""

    def __init__(self, operations: Operations, sock: socket.socket) -> None:
        registry = VarlinkInterfaceRegistry()
        registry.register_interface(ManagerInterface(operations))
        registry.register_interface(
            VarlinkServiceInterface("fused", "fused manager", __version__, "", registry)
        )
        self._registry = registry
        self._sock = sock
        self._connections: dict[asyncio.Task[None], int] = {}  # to the user's id

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_unix_server(
            self._connected, sock=self._sock, limit=MESSAGE_BYTES
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = rights.of(writer.get_extra_info("socket"))
        crowded = Counter(self._connections.values())[peer.uid] >= CONNECTIONS
        if crowded or not self._server.is_serving():
            writer.transport.abort()
            return
        connection = _Connection(self._registry, peer, reader, writer)
        task = asyncio.create_task(connection.serve(), name=f"client {peer.pid}")
        self._connections[task] = peer.uid
        task.add_done_callback(self._connections.pop)
        task.add_done_callback(lambda _: writer.transport.abort())


class _Gone(Exception):
    """The client has gone, or is too slow and must go."""


class _Connection:
    """One client."""

    def __init__(
        self,
        registry: VarlinkInterfaceRegistry,
        peer: rights.Peer,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._registry = registry
        self._peer = peer
        self._reader = reader
        self._writer = writer

    async def serve(self) -> None:
        """Answer calls until the client goes, or must go."""
        with contextlib.suppress(_Gone):
            while (call := await self._receive()) is not None:
                await self._answer(call)
            self._writer.close()
            await self._in_time(self._writer.wait_closed())

    async def _receive(self) -> VarlinkMethodCall | None:
        """The next call; None when there is none, or no call."""
        try:
            message = await self._in_time(self._reader.readuntil(b"\0"))
            return VarlinkMethodCall.fromjson(json.loads(message[:-1]))
        except asyncio.IncompleteReadError:
            return None  # it asks no more
        except (ValueError, TypeError, RecursionError, asyncio.LimitOverrunError) as error:
            log.debug("dropped a client (pid %d): %s", self._peer.pid, str(error)[:200])
            return None

    async def _answer(self, call: VarlinkMethodCall) -> None:
        try:
            await self._perform(call)
        except VarlinkErrorReply as error:
            await self._send(call, error.toreply())
        except errors.FusedError as error:
            await self._send(call, to_wire(error).toreply())
        except _Gone:
            raise
        except Exception as error:
            log.exception("bug in %s", call.method)
            what = f"{type(error).__name__} in {call.method}"
            await self._send(call, interface.InternalError(message=what).toreply())

    async def _perform(self, call: VarlinkMethodCall) -> None:
        method, signature = self._registry.lookup_method(call)
        if call.method_interface == ManagerInterface.name and not rights.allowed(
            self._peer, method
        ):
            raise PermissionDenied()
        try:
            parameters = signature.parameter_type.fromjson(call.parameters)
        except ConversionError as error:
            raise InvalidParameter(parameter=str((error.location or [""])[0])) from None
        if signature.more:
            async with contextlib.aclosing(method(**parameters)) as results:
                async for result in results:
                    await self._reply(call, signature, result)
        else:
            result = method(**parameters)
            await self._reply(call, signature, await result if signature.asynchronous else result)

    async def _reply(
        self, call: VarlinkMethodCall, signature: VarlinkMethodSignature, result: AnnotatedResult
    ) -> None:
        parameters = signature.return_type.tojson(result.parameters)
        await self._send(call, VarlinkMethodReply(parameters, continues=result.continues))

    async def _send(self, call: VarlinkMethodCall, reply: VarlinkMethodReply) -> None:
        if not call.oneway:
            message: Any = reply.tojson()
            self._writer.write(json.dumps(message, separators=(",", ":")).encode() + b"\0")
            await self._in_time(self._writer.drain())

    async def _in_time(self, action: Awaitable[Result]) -> Result:
        """Wait for the client to do its part."""
        try:
            async with asyncio.timeout(MESSAGE_SECONDS):
                return await action
        except (OSError, TimeoutError):
            raise _Gone from None


def to_wire(error: errors.FusedError) -> VarlinkErrorReply:
    """The Varlink error for an error."""
    message = str(error)
    if isinstance(error, errors.UnknownMount):
        return interface.NoSuchMount(message=message)
    if isinstance(error, errors.ConfigError):
        return interface.ConfigRefused({"message": message, "problems": list(error.problems)})
    if isinstance(error, errors.MountBusy):
        holders: Any = [Holder(pid, who, list(uses)) for pid, who, uses in error.holders]
        return interface.Busy({"message": message, "holders": holders})
    return interface.Refused(message=message)


def listen(path: str) -> socket.socket:
    """Listen at `path`, replacing what is there in one step; FusedError when that cannot be."""
    temporary = f"{path}.{os.getpid()}"
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        sock.bind(temporary)
        os.chmod(temporary, 0o666)  # rights are checked at each call
        sock.listen(128)
        os.rename(temporary, path)
    except OSError as error:
        sock.close()
        raise errors.FusedError(f"cannot listen on {path}: {error.strerror or error}") from None
    return sock


def passed(fds: dict[str, int]) -> socket.socket | None:
    """The listening socket among descriptors passed by systemd (fused.socket), if there is one."""
    for fd in fds.values():
        if stat.S_ISSOCK(os.fstat(fd).st_mode):
            sock = socket.socket(fileno=fd)
            sock.setblocking(False)
            return sock
    return None
