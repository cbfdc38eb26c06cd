"""Mounts whose worker is gone for good: nothing but an error is left at their mountpoint, or
programs that wait for an answer that nobody will give."""

import contextlib
import logging
import time

from fused import mountinfo
from fused.launcher import Phase, WorkerState
from fused.manager.status import Observation

log = logging.getLogger(__name__)

STUCK_SECONDS = 90.0  # longer than any deadline of a launcher


def is_hopeless(seen: Observation, worker: WorkerState) -> bool:
    """Whether the mount is there and no worker will ever serve it again.

    Never so while a launcher may bring a successor.  A worker that neither stops nor hands over,
    killed or not, waits for its own mount: only an abort can end it.
    """
    if seen.mount is None:
        return False
    if worker.phase in (Phase.STOPPING, Phase.RESTARTING) and worker.pid is not None:
        return time.monotonic() - worker.since > STUCK_SECONDS
    return not seen.alive and worker.phase in (Phase.INACTIVE, Phase.FAILED)


def remove(mount: mountinfo.Mount) -> None:
    """Fail all requests of a mount and detach it; never waits."""
    mountinfo.abort(mount.minor)
    top = mountinfo.at(mount.mountpoint)
    if top is not None and top.minor == mount.minor:
        with contextlib.suppress(OSError):  # somebody else was faster
            mountinfo.detach(mount.mountpoint)
    log.info("detached the dead mount of '%s' at %s", mount.source, mount.mountpoint)
