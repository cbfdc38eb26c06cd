"""sd_notify(3) and sd_listen_fds(3), from the side of the process that is supervised.

Written out instead of taken from systemd-python because a worker needs to send descriptors
(FDSTORE) and must start fast: libsystemd alone would cost a tenth of a takeover.
"""

import array
import os
import socket


def notify(*assignments: str, fds: tuple[int, ...] = ()) -> bool:
    """Send newline-joined `assignments` (and descriptors) to $NOTIFY_SOCKET in one datagram.

    Returns False when there is no supervisor, or none any more.  Waits while its queue is full.
    """
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path:
        return False
    address = "\0" + path[1:] if path.startswith("@") else path
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        try:
            sock.connect(address)
            sock.sendmsg(["\n".join(assignments).encode()], ancillary)
        except (FileNotFoundError, ConnectionError):
            return False
    return True


def store(name: str, fd: int) -> bool:
    """Put a descriptor into the supervisor's fd store under `name`; False without supervisor."""
    return notify("FDSTORE=1", f"FDNAME={name}", fds=(fd,))


def unstore(name: str) -> bool:
    """Remove all descriptors called `name` from the fd store."""
    return notify("FDSTOREREMOVE=1", f"FDNAME={name}")


def listen_fds() -> dict[str, int]:
    """The descriptors passed by the supervisor, by name, close-on-exec; the variables are unset.

    Of several descriptors with one name the last wins, the others are closed.
    """
    pid, count = os.environ.pop("LISTEN_PID", ""), os.environ.pop("LISTEN_FDS", "")
    names = os.environ.pop("LISTEN_FDNAMES", "").split(":")
    if pid != str(os.getpid()) or not count.isdigit():
        return {}
    found: dict[str, int] = {}
    for index in range(int(count)):
        fd = 3 + index
        os.set_inheritable(fd, False)
        name = names[index] if index < len(names) else "unknown"
        if name in found:
            os.close(found[name])
        found[name] = fd
    return found


def watchdog_interval() -> float | None:
    """Seconds within which WATCHDOG=1 is expected, or None when nobody watches."""
    usec, pid = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", "")
    if not usec.isdigit() or int(usec) == 0 or (pid and pid != str(os.getpid())):
        return None
    return int(usec) / 1e6
