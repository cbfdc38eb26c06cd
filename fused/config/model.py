"""The common keys of a mount, in which words they are written, and what they mean when left out.

The field descriptions are the documentation: schema and man page are made from them.
"""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo

from fused.filesystems.faults import shown
from fused.filesystems.options import AbsolutePath, Duration, Options
from fused.spec import MountSpec

NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}")
_CONTRARY = (("ro", "rw"), ("noatime", "relatime", "strictatime"))


def _compatible(options: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
    if info.data.get("read_only") and "rw" in options:
        raise ValueError("'rw' contradicts 'read_only: true'")
    for group in _CONTRARY:
        chosen = [option for option in group if option in options]
        if len(chosen) > 1:
            raise ValueError(f"{chosen[0]!r} and {chosen[1]!r} contradict each other")
    return tuple(dict.fromkeys(options))


def _mountpoint(path: str) -> str:
    if path == "/":
        raise ValueError("cannot mount upon '/'")
    return path


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _pattern(value: str) -> str:
    if not value or "\0" in value:
        raise ValueError(
            f"expected a path or a pattern such as fused.d/*.yaml, not {shown(value)}"
        )
    return value


def _empty(value: Any) -> Any:
    return {} if value is None else value


# what mount(2) has a flag for, and rw
MountFlag = Literal[
    "ro", "rw", "nosuid", "nodev", "noexec", "sync", "dirsync", "noatime", "nodiratime",
    "relatime", "strictatime", "nosymfollow",
]  # fmt: skip


class Defaults(Options):
    """What `defaults` may hold: every common key but the mountpoint."""

    type: str | None = Field(
        None,
        description="static, memory, passthrough, the name of an installed type (fusedctl types), "
        "or package.module:Class, a subclass of llfuse.Operations.",
    )
    autostart: bool = Field(True, description="Mount when the manager starts.")
    read_only: bool = Field(False, description="Refuse all changes.")
    allow_other: bool = Field(
        True, description="Let all users in, as the permissions say; else only root."
    )
    mount_options: Annotated[
        tuple[MountFlag, ...], Field(strict=False), AfterValidator(_compatible)
    ] = Field((), description="Flags of mount(8).")
    threads: Annotated[int, Field(ge=1, le=256)] | None = Field(
        None, description="Threads that serve requests. Not given: what suits the type."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="The least important messages to log."
    )
    stop_timeout: Duration = Field(
        10.0,
        description="How long a busy mount may take to become free when it is stopped; then it is "
        "detached, and goes when the last process leaves it.",
    )
    watchdog: Duration = Field(
        30.0, description="Replace a worker that moves no request for so long; 0: never."
    )
    on_crash: Literal["resume", "remount"] = Field(
        "resume",
        description="resume: a new worker goes on with the same mount, open files and all. "
        "remount: the mount is given up and made anew.",
    )


class Mount(Defaults):
    """The common keys of one mount; the type's own options stand beside them."""

    type: str = Field(description=Defaults.model_fields["type"].description)
    mountpoint: Annotated[AbsolutePath, AfterValidator(_mountpoint)] = Field(
        description="The directory to mount upon; created when missing."
    )

    def spec(self, name: str, options: dict[str, Any]) -> MountSpec:
        """The mount with its options; `ro` and `rw` among the mount options become `read_only`."""
        values = self.model_dump()
        values["read_only"] = self.read_only or "ro" in self.mount_options
        values["mount_options"] = tuple(
            option for option in self.mount_options if option not in ("ro", "rw")
        )
        return MountSpec(name=name, options=options, **values)


class Included(Options):
    """An included file."""

    mounts: Annotated[dict[str, Any], BeforeValidator(_empty)] = Field(
        {}, description="What to mount: a name, and what it is."
    )


class Main(Included):
    """The configuration file."""

    defaults: Annotated[dict[str, Any], BeforeValidator(_empty)] = Field(
        {}, description="Common keys for all mounts that do not say otherwise."
    )
    include: Annotated[
        tuple[Annotated[str, AfterValidator(_pattern)], ...],
        Field(strict=False),
        BeforeValidator(_listed),
    ] = Field(
        (),
        description="More files with 'mounts': a pattern or a list of them, such as "
        "/etc/fused.d/*.yaml; relative to this file.",
    )
