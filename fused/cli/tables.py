"""What people see: tables and details of what the manager says."""

from collections.abc import Iterable

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fused.control.types import Inode, MountStatus, Operation, TypeInfo

COLOURS = {
    "serving": "green",
    "starting": "yellow",
    "recovering": "yellow",
    "stopping": "yellow",
    "failed": "red",
    "stopped": "dim",
}
UNLIMITED = 10_000  # columns: nothing is cut, a terminal wraps by itself


def print_status(mounts: list[MountStatus]) -> None:
    """The table of all mounts, and below it why the failed ones failed."""
    table = _table("name type state mountpoint", "pid uptime restarts known lookups open req/s")
    for one in mounts:
        table.add_row(
            one.name,
            one.type,
            Text(one.state, COLOURS[one.state]),
            one.mountpoint,
            str(one.pid or "-"),
            duration(one.uptime),
            *map(str, (one.restarts, one.knownInodes, one.lookupCount, one.openHandles)),
            f"{one.requestsPerSecond:.0f}",
        )
    console = _console()
    console.print(table)
    for one in mounts:
        if one.state == "failed":
            console.print(Text(f"\n{one.name}: {one.lastError or 'failed'}", "red"))
        if one.oldestRequest is not None and one.oldestRequest.age > 1:
            console.print(Text(f"\n{one.name}: {_oldest(one)}", "yellow"))


def print_details(one: MountStatus) -> None:
    """Everything about one mount."""
    rows = {
        "State": Text(one.state, COLOURS[one.state]),
        "Type": one.type,
        "Mountpoint": one.mountpoint,
        "Status": one.statusText,
        "Error": one.lastError,
        "Worker": one.pid and f"pid {one.pid}" + (f", {one.unit}" if one.unit else ""),
        "Log": one.log,
        "Autostart": "yes" if one.autostart else "no",
        "Uptime": duration(one.uptime),
        "Restarts": one.restarts,
        "Known inodes": f"{one.knownInodes} with {one.lookupCount} lookups",
        "Open handles": one.openHandles,
        "Requests": f"{one.requests}, {one.errors} errors, {one.requestsPerSecond:.1f}/s",
        "Longest at work": _oldest(one),
        "Kernel features": ", ".join(one.features),
    }
    console = _console()
    console.print(Text(one.name, "bold"))
    for key, value in rows.items():
        if value not in (None, ""):
            console.print(
                Text(f"{key:>16}: ").append(value if isinstance(value, Text) else str(value))
            )


def print_inodes(inodes: Iterable[Inode], total: int) -> None:
    """What the kernel knows of a mount."""
    table = _table("", "inode lookups open links", "path")
    for one in inodes:
        path = Text(one.path + (" (unlinked)" if one.unlinked else ""))
        table.add_row(*map(str, (one.inode, one.lookupCount, one.openHandles, one.links)), path)
    console = _console()
    console.print(table)
    console.print(f"\ntotal lookups: {total}")


def print_operations(operations: list[Operation]) -> None:
    """Statistics."""
    table = _table("operation", "count errors p50 p99 max")
    for one in operations:
        times = (latency(seconds) for seconds in (one.p50, one.p99, one.max))
        table.add_row(one.operation, str(one.count), str(one.errors), *times)
    _console().print(table)


def print_types(types: list[TypeInfo]) -> None:
    """What can be mounted."""
    console = _console()
    for one in types:
        console.print(Text(one.name, "bold").append(f"  ({one.origin})", "dim"))
        if one.description:
            console.print(Text(f"  {one.description}"))
        for option in one.options:
            default = "required" if option.required else f"default: {option.default or 'none'}"
            console.print(Text(f"    {option.name}: {option.type or 'anything'} ({default})"))
            if option.description:
                console.print(Text(f"        {option.description}"))


def duration(seconds: float | None) -> str:
    """A time span in the two largest units that it has."""
    if seconds is None:
        return "-"
    if seconds < 60:
        return f"{seconds:.0f}s"
    minutes, hours, days = int(seconds // 60), int(seconds // 3600), int(seconds // 86400)
    if not hours:
        return f"{minutes}min {int(seconds) % 60}s"
    return f"{hours}h {minutes % 60}min" if not days else f"{days}d {hours % 24}h"


def latency(seconds: float) -> str:
    """A short time span in a unit that fits."""
    for unit, factor in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= factor:
            return f"{seconds / factor:.1f} {unit}"
    return f"{seconds * 1e6:.1f} us"


def _oldest(one: MountStatus) -> str:
    oldest = one.oldestRequest
    if oldest is None:
        return ""
    text = f"{oldest.operation} of inode {oldest.inode} for {latency(oldest.age)}"
    return text + (f", attempt {oldest.attempts + 1}" if oldest.attempts else "")


def _table(left: str, right: str = "", last: str = "") -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in left.split():
        table.add_column(name.upper(), no_wrap=True)
    for name in right.split():
        table.add_column(name.upper(), no_wrap=True, justify="right")
    for name in last.split():
        table.add_column(name.upper(), no_wrap=True)
    return table


def _console() -> Console:
    return Console(width=UNLIMITED, highlight=False)
