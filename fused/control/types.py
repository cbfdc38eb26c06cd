"""What goes over the control socket, with the comments that the interface text shows."""

from dataclasses import dataclass, field
from typing import Literal, TypedDict

State = Literal["stopped", "starting", "serving", "recovering", "stopping", "failed"]


def doc(text: str) -> dict[str, str]:
    """Metadata of a dataclass field: the comment that stands above it in the interface text."""
    return {"doc": text}


@dataclass(frozen=True)
class Request:
    """A request that a file system is working on."""

    operation: str = field(metadata=doc("What was asked: lookup, read, …"))
    inode: int = field(metadata=doc("The node id that it is about"))
    age: float = field(metadata=doc("Seconds since the worker began with it"))
    attempts: int = field(metadata=doc("How many workers have begun with it before"))


@dataclass(frozen=True)
class MountStatus:
    """A mount of the configuration and how it is doing."""

    name: str = field(metadata=doc("The name in the configuration"))
    type: str = field(
        metadata=doc("static, memory, passthrough, an entry point, or package.module:Class")
    )
    mountpoint: str = field(metadata=doc("Where it is mounted, an absolute path"))
    state: State = field(
        metadata=doc("recovering: its worker is gone, programs wait for the successor")
    )
    pid: int | None = field(metadata=doc("The worker's process, null when there is none"))
    uptime: float | None = field(metadata=doc("Seconds since it was mounted, null when it is not"))
    restarts: int = field(metadata=doc("Successors that took the mount over since then"))
    knownInodes: int = field(metadata=doc("Inodes that the kernel knows"))
    lookupCount: int = field(metadata=doc("Sum of their lookup counts"))
    openHandles: int = field(metadata=doc("Open files and directories"))
    requests: int = field(metadata=doc("Requests answered since it was mounted"))
    errors: int = field(metadata=doc("Those answered with an error, such as ENOENT"))
    lastError: str | None = field(
        metadata=doc("Why it failed, or why its last worker ended, a sentence")
    )
    unit: str | None = field(metadata=doc("The systemd unit, null with the local launcher"))
    log: str | None = field(metadata=doc("The log file, null when that is the journal"))
    autostart: bool = field(metadata=doc("Whether the manager starts it by itself"))
    requestsPerSecond: float = field(
        metadata=doc("Requests answered per second, over the last seconds")
    )
    statusText: str = field(metadata=doc("What the worker says of itself"))
    features: list[str] = field(metadata=doc("The kernel's features in use"))
    oldestRequest: Request | None = field(
        metadata=doc("The request that is being worked on for longest")
    )


@dataclass(frozen=True)
class Inode:
    """An inode that the kernel knows."""

    inode: int = field(metadata=doc("The node id, which users see as st_ino; the root has 1"))
    lookupCount: int = field(
        metadata=doc("How often the kernel was told of it and has not forgotten it")
    )
    openHandles: int = field(metadata=doc("How often it is open"))
    links: int = field(metadata=doc("Its number of names, as last seen"))
    path: str = field(
        metadata=doc("A name seen from the mount's root; bytes that are not UTF-8 as \\xNN")
    )
    unlinked: bool = field(metadata=doc("Whether it lost its last name while known or open"))


@dataclass(frozen=True)
class Operation:
    """The statistics of one operation since the mount was made."""

    operation: str = field(metadata=doc("lookup, read, …"))
    count: int = field(metadata=doc("Requests answered"))
    errors: int = field(metadata=doc("Those answered with an error"))
    p50: float = field(
        metadata=doc("Seconds within which half of them were answered, within a factor of two")
    )
    p99: float = field(metadata=doc("Likewise 99 of 100"))
    max: float = field(metadata=doc("The longest took this many seconds"))


@dataclass(frozen=True)
class Option:
    """An option of a type, beside the common ones."""

    name: str = field(metadata=doc("The key in the configuration"))
    type: str = field(metadata=doc("What it takes: size, duration, path, text, a | b, …"))
    required: bool = field(metadata=doc("Whether it must be given"))
    default: str | None = field(metadata=doc("What it is when not given, as JSON"))
    description: str = field(metadata=doc("What it does"))


@dataclass(frozen=True)
class TypeInfo:
    """A file system that can be mounted."""

    name: str = field(metadata=doc("The value for `type:` in the configuration"))
    origin: str = field(metadata=doc("built-in, or the package that it came with"))
    description: str = field(metadata=doc("What it is, or why it cannot be used"))
    options: list[Option] = field(metadata=doc("Its own options"))


@dataclass(frozen=True)
class Holder:
    """A process that uses a mount."""

    pid: int = field(metadata=doc("Its process id; 0 for another mount below"))
    command: str = field(metadata=doc("Its name"))
    uses: list[str] = field(metadata=doc("cwd, root, program, open file PATH, mapping PATH"))


@dataclass(frozen=True)
class Failure:
    """A mount for which something could not be done."""

    name: str = field(metadata=doc("The mount"))
    message: str = field(metadata=doc("What, and why"))


TYPES = (Request, MountStatus, Inode, Operation, Option, TypeInfo, Holder, Failure)


class LookupsReply(TypedDict):
    """A part of the answer to Lookups."""

    mount: str
    totalLookups: int
    inodes: list[Inode]


class ReloadReply(TypedDict):
    """What a reload did."""

    started: list[str]
    stopped: list[str]
    restarted: list[str]
    remounted: list[str]
    failed: list[Failure]
