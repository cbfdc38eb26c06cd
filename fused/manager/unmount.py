"""umount2(2) from a child process.

An unmount that does not detach writes dirty pages back first, which waits for the file system; a
look at /proc/PID/maps may wait for a process that waits for the file system.  So both are done by
a child, which can be left behind.
"""

import asyncio
import contextlib
import errno
import json
import os
import sys
import time

from fused import mountinfo
from fused.errors import FusedError, MountBusy
from fused.holders import Holder, holders

ANSWER_SECONDS = 15.0  # for the file system to write back; then it is said not to answer
RETRY_SECONDS = 0.2


async def unmount(name: str, mount: mountinfo.Mount, wait: float) -> None:
    """Unmount cleanly, trying again for `wait` seconds while it is busy.  MountBusy with the
    holders, or FusedError; then the mount is as it was."""
    deadline = time.monotonic() + wait
    while True:
        number, found = await _try(name, mount)
        if number == 0:
            return
        if number != errno.EBUSY:
            raise FusedError(f"cannot unmount '{name}': {os.strerror(number)}")
        if time.monotonic() >= deadline:
            raise MountBusy(busy_text(name, found), found)
        await asyncio.sleep(RETRY_SECONDS)


def busy_text(name: str, found: list[Holder]) -> str:
    """The sentence for a refused unmount."""
    processes = [holder for holder in found if holder.pid]
    what = f"{len(processes)} process{'es use' if len(processes) != 1 else ' uses'} it"
    if not found:
        who = "it is busy, but no process that uses it can be seen"
    elif not processes:
        who = ", ".join(map(str, found))
    else:
        who = f"{what}: " + ", ".join(map(str, found))
    return (
        f"cannot unmount '{name}': {who}\n"
        f"'fusedctl unmount {name} --wait SECONDS' waits for them, --lazy detaches it anyway"
    )


async def _try(name: str, mount: mountinfo.Mount) -> tuple[int, list[Holder]]:
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "fused.manager.unmount", mount.mountpoint, str(mount.minor)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        cwd=os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))),
    )
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            output, _ = await child.communicate()
    except TimeoutError:
        raise FusedError(
            f"cannot unmount '{name}': it does not answer; "
            f"'fusedctl unmount {name} --abort' fails all requests and detaches it"
        ) from None
    finally:
        with contextlib.suppress(ProcessLookupError):
            child.kill()
    if child.returncode != 0:
        raise RuntimeError(f"the unmounting child of {name} ended with {child.returncode}")
    number, found = json.loads(output)
    return number, [Holder(pid, command, tuple(uses)) for pid, command, uses in found]


def main(mountpoint: str, minor: str) -> None:
    """The child: print the errno of umount2(2), or 0, and who uses the mount if it is busy."""
    try:
        mountinfo.umount(mountpoint)
    except OSError as error:
        number = error.errno or errno.EIO
        print(json.dumps([number, holders(int(minor)) if number == errno.EBUSY else []]))
    else:
        print("[0, []]")


if __name__ == "__main__":
    main(*sys.argv[1:])
