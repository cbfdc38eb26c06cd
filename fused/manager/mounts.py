"""The verbs for one mount: start, stop, restart, unmount, tear away."""

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import time
from collections import defaultdict
from collections.abc import Iterator

from fused import mountinfo, spec
from fused.errors import FusedError
from fused.launcher import Launcher, Phase
from fused.manager import stale, unmount
from fused.manager.status import Observation, observe
from fused.spec import MountSpec, Stamp

log = logging.getLogger(__name__)

ABORTED_SECONDS = 5.0  # for a worker to see that its connection is gone
LINGER_SECONDS = 15.0  # for a worker of an earlier manager to end; then it is killed


class Mounts:
    """Carries out what the manager decides.  Errors are FusedError and name the mount.

    Invariant: what changes a mount, other than tearing it away by force, holds its lock.
    """

    def __init__(self, runtime_dir: str, launcher: Launcher) -> None:
        self.runtime_dir = runtime_dir
        self.launcher = launcher
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    def observe(self, wanted: MountSpec) -> Observation:
        """Look at a mount without asking anybody."""
        return observe(self.runtime_dir, wanted, mountinfo.mounts())

    def save(self, wanted: MountSpec, stamp: Stamp) -> None:
        """Write down what workers are to do from now on."""
        spec.save(os.path.join(self.runtime_dir, wanted.name), wanted, stamp)

    async def start(self, wanted: MountSpec, stamp: Stamp) -> None:
        """Mount; returns when it serves."""
        async with self._locks[wanted.name]:
            with _explained(f"cannot mount '{wanted.name}'"):
                await self._not_in_the_way(wanted)
                self.save(wanted, stamp)
                await self.launcher.start(wanted.name)

    async def restart(self, wanted: MountSpec, stamp: Stamp) -> None:
        """Have a successor take over, or mount when there is nothing to take over."""
        async with self._locks[wanted.name]:
            with _explained(f"cannot restart '{wanted.name}'"):
                await self._not_in_the_way(wanted)
                self.save(wanted, stamp)
                await self.launcher.restart(wanted.name)

    async def unmount(self, wanted: MountSpec, wait: float) -> None:
        """Unmount, unless it is in use for `wait` seconds: MountBusy, and it is as it was."""
        async with self._locks[wanted.name]:
            mount = self.observe(wanted).mount
            if mount is not None:
                _not_covered(wanted.name, mount)
                await unmount.unmount(wanted.name, mount, wait)
            await self._stop(wanted)

    async def stop(self, wanted: MountSpec, forget: bool = False) -> None:
        """Have its worker unmount: one in use is detached after its `stop_timeout`.  With `forget`
        nothing is left in the runtime directory."""
        async with self._locks[wanted.name]:
            await self._stop(wanted)
            if forget:
                directory = os.path.join(self.runtime_dir, wanted.name)
                shutil.rmtree(directory, ignore_errors=True)

    async def detach(self, wanted: MountSpec) -> None:
        """Detach lazily: those who use the mount go on; the worker ends with the last of them."""
        seen = self.observe(wanted)
        if seen.mount is not None:
            _not_covered(wanted.name, seen.mount)
            with _explained(f"cannot detach '{wanted.name}'"):
                mountinfo.detach(seen.mount.mountpoint)
        if not seen.alive:
            await self._stop(wanted)

    async def abort(self, wanted: MountSpec) -> None:
        """Fail all requests, detach, and end the worker."""
        seen = self.observe(wanted)
        stopping = asyncio.create_task(self._stop(wanted, ABORTED_SECONDS))
        try:
            await asyncio.sleep(0)  # from now on no worker is started for the aborted mount
            if seen.mount is not None:
                stale.remove(seen.mount)
            elif seen.header is not None and seen.alive:
                mountinfo.abort(seen.header.minor)
            await stopping
        finally:
            stopping.cancel()

    async def reclaim(self, wanted: MountSpec) -> None:
        """End what an earlier manager with the local launcher left behind: its workers got SIGTERM
        when it died, so most often there is nothing left to do."""
        seen = self.observe(wanted)
        if seen.alive and seen.header is not None:
            for number in (signal.SIGTERM, signal.SIGKILL):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(seen.header.pid, number)
                if await self._gone(wanted):
                    break
        if seen.mount is not None:
            seen = self.observe(wanted)
            if seen.mount is not None:
                stale.remove(seen.mount)

    async def _gone(self, wanted: MountSpec) -> bool:
        deadline = time.monotonic() + LINGER_SECONDS
        while self.observe(wanted).alive:
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(0.05)
        return True

    async def _stop(self, wanted: MountSpec, within: float | None = None) -> None:
        with _explained(f"cannot stop '{wanted.name}'"):
            await self.launcher.stop(wanted.name, within)
        seen = self.observe(wanted)
        if seen.mount is not None and not seen.alive:
            stale.remove(seen.mount)

    async def _not_in_the_way(self, wanted: MountSpec) -> None:
        """Remove a dead mount of ours; FusedError for one that is detached and still in use."""
        seen = self.observe(wanted)
        worker = (await self.launcher.states([wanted.name]))[wanted.name]
        if stale.is_hopeless(seen, worker) and seen.mount is not None:
            stale.remove(seen.mount)
        elif seen.alive and seen.header is not None:
            if seen.mount is None and worker.phase is Phase.SERVING:
                raise FusedError(
                    "it was detached, and programs still use it; "
                    f"'fusedctl unmount {wanted.name} --abort' ends that"
                )
            if worker.phase is Phase.INACTIVE:
                raise FusedError(f"a worker serves it already (pid {seen.header.pid})")


def _not_covered(name: str, mount: mountinfo.Mount) -> None:
    top = mountinfo.at(mount.mountpoint)
    if top is not None and top.minor != mount.minor:
        raise FusedError(
            f"cannot unmount '{name}': {top.fs_type} from {top.source} is mounted upon it; "
            f"'umount {mount.mountpoint}' removes that"
        )


@contextlib.contextmanager
def _explained(what: str) -> Iterator[None]:
    """Put what was to be done before the reason why it was not."""
    try:
        yield
    except FusedError as error:
        raise FusedError(f"{what}: {error}") from None
    except OSError as error:
        raise FusedError(f"{what}: {error.strerror or error}") from None
