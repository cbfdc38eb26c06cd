"""io.fused.Manager: declared here, once.  Server, client and interface text come out of it."""

from collections.abc import AsyncIterator
from dataclasses import fields
from typing import Protocol

from asyncvarlink import TypedVarlinkErrorReply, VarlinkInterface, varlinkmethod
from asyncvarlink.conversion import VarlinkType

from fused.control import SOCKET_NAME
from fused.control.rights import anybody
from fused.control.types import (
    TYPES,
    Holder,
    LookupsReply,
    MountStatus,
    Operation,
    ReloadReply,
    TypeInfo,
)


class Refused(TypedVarlinkErrorReply, interface=SOCKET_NAME):
    """It could not be done; `message` is a sentence that says why and what to do."""

    class Parameters:
        message: str


class NoSuchMount(TypedVarlinkErrorReply, interface=SOCKET_NAME):
    """The configuration has no mount of that name."""

    class Parameters:
        message: str


class Busy(TypedVarlinkErrorReply, interface=SOCKET_NAME):
    """The mount is in use and goes on serving."""

    class Parameters:
        message: str
        holders: list[Holder]


class ConfigRefused(TypedVarlinkErrorReply, interface=SOCKET_NAME):
    """The configuration has errors and was not applied.  Each problem is one line,
    FILE:LINE:COLUMN: WHERE: WHAT."""

    class Parameters:
        message: str
        problems: list[str]


class InternalError(TypedVarlinkErrorReply, interface=SOCKET_NAME):
    """A bug in the manager; its log has the traceback."""

    class Parameters:
        message: str


class Operations(Protocol):
    """What stands behind the interface.  Errors are FusedError."""

    async def status(self, names: list[str]) -> list[MountStatus]: ...
    def lookups(
        self, name: str, limit: int | None, unlinked: bool, minimum: int
    ) -> AsyncIterator[LookupsReply]: ...
    async def mount(self, name: str) -> MountStatus: ...
    async def unmount(self, name: str, wait: float, lazy: bool, abort: bool) -> MountStatus: ...
    async def restart(self, name: str) -> MountStatus: ...
    async def reload(self) -> ReloadReply: ...
    async def stats(self, name: str) -> list[Operation]: ...
    async def types(self) -> list[TypeInfo]: ...


class ManagerInterface(VarlinkInterface, name=SOCKET_NAME):
    """The mounts of /etc/fused.yaml.  Anybody may call Status and Types, all else is for root and
    the members of the group fused.  Times and ages are in seconds."""

    errors = (Refused, NoSuchMount, Busy, ConfigRefused, InternalError)

    def __init__(self, operations: Operations) -> None:
        self._operations = operations

    @anybody
    @varlinkmethod(return_parameter="mounts")
    async def Status(self, *, names: list[str] | None = None) -> list[MountStatus]:
        """The mounts called `names`, or all of them, in the configuration's order."""
        return await self._operations.status(names or [])

    @varlinkmethod
    async def Lookups(
        self,
        *,
        name: str,
        limit: int | None = None,
        unlinked: bool | None = None,
        minimum: int | None = None,
    ) -> AsyncIterator[LookupsReply]:
        """The inodes of mount `name` that the kernel knows, in several replies: at most `limit`,
        only `unlinked` ones, only those with a lookup count of `minimum` or more.
        `totalLookups` is the sum over all inodes, whatever was asked for."""
        chosen = self._operations.lookups(name, limit, bool(unlinked), minimum or 0)
        async for reply in chosen:
            yield reply

    @varlinkmethod(return_parameter="mount")
    async def Mount(self, *, name: str) -> MountStatus:
        """Mount `name`; the reply comes when it serves."""
        return await self._operations.mount(name)

    @varlinkmethod(return_parameter="mount")
    async def Unmount(
        self,
        *,
        name: str,
        wait: float | None = None,
        lazy: bool | None = None,
        abort: bool | None = None,
    ) -> MountStatus:
        """Unmount `name`.  A mount in use is refused (Busy) after `wait` seconds, and goes on
        serving.  `lazy` detaches it: those who use it go on, nobody else finds it.  `abort` fails
        all requests and detaches it."""
        return await self._operations.unmount(name, wait or 0.0, bool(lazy), bool(abort))

    @varlinkmethod(return_parameter="mount")
    async def Restart(self, *, name: str) -> MountStatus:
        """Have a new worker take mount `name` over; users see a pause."""
        return await self._operations.restart(name)

    @varlinkmethod
    async def Reload(self) -> ReloadReply:
        """Read the configuration again and apply the difference: new mounts start, gone ones
        stop, changed ones restart in place where the change allows it, else unmount and mount.
        One with errors is refused as a whole (ConfigRefused)."""
        return await self._operations.reload()

    @varlinkmethod(return_parameter="operations")
    async def Stats(self, *, name: str) -> list[Operation]:
        """What mount `name` was asked, how often, and how long it took."""
        return await self._operations.stats(name)

    @anybody
    @varlinkmethod(return_parameter="types")
    async def Types(self) -> list[TypeInfo]:
        """The file systems that can be mounted, and their options."""
        return await self._operations.types()

    @classmethod
    def render_interface_description(cls, *, comments: bool = True) -> str:
        """The interface text, with a comment above every field of every type."""
        text = super().render_interface_description(comments=comments)
        if not comments:
            return text
        lines = text.split("\n")
        for described in TYPES:
            at = next(
                i for i, line in enumerate(lines) if line.startswith(f"type {described.__name__} ")
            )
            lines[at] = _describe(described)
        return "\n".join(lines)


def _describe(described: type) -> str:
    lines = [f"# {described.__doc__}", f"type {described.__name__} ("]
    members = fields(described)
    for member in members:
        kind = VarlinkType.from_type_annotation(member.type).as_varlink
        comma = "," if member is not members[-1] else ""
        lines += [f"  # {member.metadata['doc']}", f"  {member.name}: {kind}{comma}"]
    return "\n".join([*lines, ")", ""])
