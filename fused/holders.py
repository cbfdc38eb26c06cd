"""Who uses a mount: what keeps umount(2) from succeeding.

Nothing here touches the mount.  A file on it is recognised by its mount id (proc_pid_fdinfo(5)),
by the device number of a mapping (proc_pid_maps(5)) or by the text of a link in /proc, which the
kernel makes without asking the file system.
"""

import contextlib
import os
from collections.abc import Iterator
from typing import NamedTuple

from fused import mountinfo


class Holder(NamedTuple):
    """A process that uses a mount.  Each use is "cwd", "root", "program", "open file PATH" or
    "mapping PATH", with PATH as seen from the mount's root.  Pid 0 stands for a mount below."""

    pid: int
    command: str
    uses: tuple[str, ...]

    def __str__(self) -> str:
        shown = ", ".join(self.uses[:2]) + (", …" if len(self.uses) > 2 else "")
        return f"{self.command}({self.pid}: {shown})" if self.pid else shown


class _Namespace:
    """The mounts of one mount namespace, and which of them are the one that is looked for."""

    def __init__(self, text: str, minor: int) -> None:
        self._mounts: list[tuple[str, bool]] = []
        self.ids: dict[str, str] = {}
        for line, mount in zip(text.splitlines(), mountinfo.parse(text), strict=True):
            wanted = mount.major == 0 and mount.minor == minor
            self._mounts.append((mount.mountpoint, wanted))
            if wanted:
                self.ids[line.split(" ", 1)[0]] = mount.mountpoint

    def below(self, path: str) -> str | None:
        """`path` as seen from the wanted mount's root, or None when it lies elsewhere."""
        best, wanted = "", False
        for place, candidate in self._mounts:
            if len(place) >= len(best) and _lies_in(path, place):
                best, wanted = place, candidate
        return _inside(path, best) if wanted else None


def holders(minor: int) -> list[Holder]:
    """The processes that use the mount with device number 0:`minor`, in any mount namespace, and
    the mounts below it in this one."""
    found = [Holder(0, "mount", (f"{path} is mounted below",)) for path in _mounts_below(minor)]
    namespaces: dict[str, _Namespace] = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        with contextlib.suppress(OSError):  # it ended meanwhile, or is a zombie
            directory = f"/proc/{entry}"
            key = os.readlink(f"{directory}/ns/mnt")
            if key not in namespaces:
                namespaces[key] = _Namespace(_read(f"{directory}/mountinfo"), minor)
            if namespaces[key].ids:
                uses = tuple(dict.fromkeys(_uses(directory, namespaces[key], minor)))
                if uses:
                    found.append(Holder(int(entry), _read(f"{directory}/comm").strip(), uses))
    return found


def _mounts_below(minor: int) -> list[str]:
    mounts = mountinfo.mounts()
    places = [one.mountpoint for one in mounts if (one.major, one.minor) == (0, minor)]
    return [
        one.mountpoint
        for one in mounts
        for place in places
        if one.mountpoint != place and _lies_in(one.mountpoint, place)
    ]


def _uses(directory: str, namespace: _Namespace, minor: int) -> Iterator[str]:
    for link, what in (("cwd", "cwd"), ("root", "root"), ("exe", "program")):
        with contextlib.suppress(OSError):
            if namespace.below(os.readlink(f"{directory}/{link}")) is not None:
                yield what
    for number in os.listdir(f"{directory}/fd"):
        with contextlib.suppress(OSError):
            path = os.readlink(f"{directory}/fd/{number}")
            if path.startswith("/"):
                info = _read(f"{directory}/fdinfo/{number}")
                place = namespace.ids.get(info.partition("mnt_id:")[2].split(None, 1)[0])
                if place is not None:
                    yield f"open file {_inside(path, place)}"
    device = f" 00:{minor:02x} "
    for line in _read(f"{directory}/maps").splitlines():
        if device in line[:100]:
            path = line.split(None, 5)[5]
            yield f"mapping {namespace.below(path) or path}"


def _lies_in(path: str, place: str) -> bool:
    return path == place or path.startswith(place.rstrip("/") + "/")


def _inside(path: str, place: str) -> str:
    return path[len(place.rstrip("/")) :] or "/" if _lies_in(path, place) else path


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        return file.read()
