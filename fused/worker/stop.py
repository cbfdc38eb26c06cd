"""The clean end of a mount: unmount it while it is still served."""

import logging
import subprocess
import time

from fused import mountinfo, notify
from fused.spec import MountSpec

log = logging.getLogger("fused.worker")
PAUSE = 0.2  # seconds between attempts


def unmount(mount: MountSpec, minor: int) -> None:
    """Unmount; a busy mount is waited for as long as `stop_timeout` says, then detached lazily."""
    notify.notify(
        "STOPPING=1",
        f"STATUS=unmounting {mount.mountpoint}",
        f"EXTEND_TIMEOUT_USEC={int((mount.stop_timeout + 10) * 1e6)}",
    )
    deadline = time.monotonic() + mount.stop_timeout
    told = False
    while _mounted(mount, minor):
        if _umount(mount.mountpoint, deadline):
            return
        if not told:
            told = True
            users = _users(mount, minor)
            log.warning("%s is busy, waiting %.0f s: %s", mount.name, mount.stop_timeout, users)
            notify.notify(f"STATUS=waiting for users of {mount.mountpoint}: {users}")
        if time.monotonic() > deadline:
            log.warning("%s is still in use: detaching it", mount.name)
            mountinfo.detach(mount.mountpoint)
            return
        time.sleep(PAUSE)


def _mounted(mount: MountSpec, minor: int) -> bool:
    found = mountinfo.at(mount.mountpoint)
    return found is not None and found.minor == minor


def _umount(mountpoint: str, deadline: float) -> bool:
    """umount(8) in a process of its own: it waits for dirty data, which this process writes."""
    try:
        result = subprocess.run(
            ["umount", "--internal-only", "--no-canonicalize", mountpoint],
            capture_output=True,
            timeout=max(1.0, deadline - time.monotonic()),
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False
    return result.returncode == 0


def _users(mount: MountSpec, minor: int) -> str:
    from fused.holders import holders

    return ", ".join(str(holder) for holder in holders(minor)) or "nobody that can be seen"
