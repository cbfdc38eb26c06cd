"""The client's side of the control socket, for programs that do one thing after the other."""

import json
import socket
from collections.abc import Iterator
from typing import Any, Self

from asyncvarlink import VarlinkMethodCall, VarlinkMethodReply, VarlinkMethodSignature
from asyncvarlink.interface import varlinksignature

from fused.control import interface
from fused.control.interface import ManagerInterface
from fused.errors import ConfigError, FusedError, MountBusy, NoManager, UnknownMount

PERMISSION_DENIED = "org.varlink.service.PermissionDenied"


class Client:
    """A connection to the manager; a context manager.  Every method may raise FusedError."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self._received = bytearray()

    def __enter__(self) -> Self:
        try:
            self._sock.connect(self._path)
        except OSError as error:
            self._sock.close()
            raise NoManager(
                f"cannot reach the manager at {self._path}: {error.strerror or error}; "
                "start it with 'systemctl start fused' (or run 'fused' in the foreground)"
            ) from None
        return self

    def __exit__(self, *_: object) -> None:
        self._sock.close()

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of io.fused.Manager; parameters that are None are left out.  The values
        of the reply are the dataclasses of fused.control.types."""
        (reply,) = self._exchange(method, parameters, more=False)
        return reply

    def stream(self, method: str, **parameters: Any) -> Iterator[dict[str, Any]]:
        """Call a method that answers more than once."""
        return self._exchange(method, parameters, more=True)

    def _exchange(
        self, method: str, parameters: dict[str, Any], more: bool
    ) -> Iterator[dict[str, Any]]:
        signature = varlinksignature(getattr(ManagerInterface, method))
        assert isinstance(signature, VarlinkMethodSignature)
        given = {key: value for key, value in parameters.items() if value is not None}
        encoded = signature.parameter_type.tojson(given)
        call = VarlinkMethodCall(f"{ManagerInterface.name}.{method}", encoded, more=more)
        self._send(json.dumps(call.tojson()).encode() + b"\0")
        while True:
            reply = VarlinkMethodReply.fromjson(json.loads(self._receive()))
            if reply.error is not None:
                raise from_wire(reply)
            yield signature.return_type.fromjson(reply.parameters)
            if not reply.continues:
                return

    def _send(self, message: bytes) -> None:
        try:
            self._sock.sendall(message)
        except OSError as error:
            raise NoManager(f"the manager went away: {error.strerror or error}") from None

    def _receive(self) -> bytes:
        while (end := self._received.find(b"\0")) < 0:
            try:
                more = self._sock.recv(1 << 16)
            except OSError as error:
                raise NoManager(f"the manager went away: {error.strerror or error}") from None
            if not more:
                raise NoManager("the manager went away before it answered; see its log")
            self._received += more
        message = bytes(self._received[:end])
        del self._received[: end + 1]
        return message


def from_wire(reply: VarlinkMethodReply) -> Exception:
    """The error for a Varlink error; a bug for one that no manager should send."""
    parameters: dict[str, Any] = dict(reply.parameters)
    message = str(parameters.get("message", reply.error))
    if reply.error == interface.NoSuchMount.name:
        return UnknownMount(message)
    if reply.error == interface.Refused.name:
        return FusedError(message)
    if reply.error == interface.ConfigRefused.name:
        return ConfigError(list(parameters["problems"]))
    if reply.error == interface.Busy.name:
        holders = [(one["pid"], one["command"], one["uses"]) for one in parameters["holders"]]
        return MountBusy(message, holders)
    if reply.error == PERMISSION_DENIED:
        return FusedError("permission denied: this is for root and members of the group 'fused'")
    return RuntimeError(f"the manager answered {reply.error} {reply.parameters}")
