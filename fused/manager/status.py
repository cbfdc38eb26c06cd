"""How a mount is doing: what its ledger says, whether its worker lives, and what the launcher
says when it does not."""

import contextlib
import os
import time
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from fused import mountinfo
from fused.control.types import Inode, LookupsReply, MountStatus, Operation, Request, State
from fused.errors import FusedError, LedgerDamaged
from fused.launcher import Launcher, Phase, WorkerState
from fused.ledger.reader import Header, Reader
from fused.spec import MountSpec

CHUNK = 1000  # inodes in one reply
RATE_SECONDS = 5.0
LEAST_SECONDS = 0.5  # between two samples that say anything

# A worker that lives speaks for itself through its ledger, with two exceptions.
OF_LIVING: dict[str, State] = {
    "stopped": "stopping",  # it has unmounted and is about to end
    "starting": "starting",
    "serving": "serving",
    "recovering": "recovering",
    "stopping": "stopping",
    "failed": "stopping",
}
# For one that does not, the launcher speaks: what it says, and whether the mount is still there.
OF_DEAD: dict[Phase, tuple[State, State]] = {
    Phase.INACTIVE: ("stopped", "stopped"),
    Phase.STARTING: ("starting", "recovering"),
    Phase.SERVING: ("recovering", "recovering"),  # it died a moment ago
    Phase.RESTARTING: ("starting", "recovering"),
    Phase.STOPPING: ("stopping", "stopping"),
    Phase.FAILED: ("failed", "failed"),
}


class Observation(NamedTuple):
    """A look at the ledger and the process table, without asking anybody."""

    header: Header | None
    alive: bool
    mount: mountinfo.Mount | None
    oldest: Request | None = None
    damage: str | None = None

    def plainly(self) -> State | None:
        """The state, or None when the launcher must be asked."""
        if self.header is None or not self.alive:
            return None
        state = OF_LIVING[self.header.state]
        if state in ("serving", "recovering") and self.mount is None:
            return "stopping"  # detached; it serves those who use it until the last is gone
        return state

    def state(self, worker: WorkerState) -> State:
        """The state, given what the launcher says."""
        if (state := self.plainly()) is not None:
            return state
        return OF_DEAD[worker.phase][self.mount is not None]


def ledger_path(runtime_dir: str, name: str) -> str:
    """Where the ledger of a mount is."""
    return os.path.join(runtime_dir, name, "ledger")


def observe(runtime_dir: str, spec: MountSpec, mounts: list[mountinfo.Mount]) -> Observation:
    """Look at one mount; `mounts` is all that is mounted now."""
    try:
        with Reader(ledger_path(runtime_dir, spec.name)) as reader:
            header, working = reader.header(), reader.in_progress()
    except FileNotFoundError:  # never mounted from here; what is there is somebody else's
        return Observation(None, False, None)
    except (LedgerDamaged, OSError) as error:
        return Observation(None, False, find(spec, None, mounts), damage=str(error))
    mount = find(spec, header.minor, mounts)
    alive = is_worker(header.pid, spec.name)
    if not (alive and working):
        return Observation(header, alive, mount)
    one = working[0]
    oldest = Request(one.operation, one.inode, one.age_ns / 1e9, one.attempts)
    return Observation(header, alive, mount, oldest)


def find(
    spec: MountSpec, minor: int | None, mounts: list[mountinfo.Mount]
) -> mountinfo.Mount | None:
    """The mount of `spec` among `mounts`: by its device number when that is known, as a mount of
    the same name may be somebody else's."""
    for mount in reversed(mounts):
        if mount.fs_type == mountinfo.FS_TYPE and mount.source == spec.name:
            if minor and (mount.major, mount.minor) == (0, minor):
                return mount
            if minor is None and mount.mountpoint == spec.mountpoint:
                return mount
    return None


def is_worker(pid: int, name: str) -> bool:
    """Whether process `pid` is a worker for `name`, and not another that got its number."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as file:
        return f"\0worker\0{name}\0".encode() in file.read()
    return False


async def statuses(
    runtime_dir: str, specs: list[MountSpec], launcher: Launcher, rates: "Rates", thorough: bool
) -> list[MountStatus]:
    """The status of each of `specs`.  The launcher is asked only where that is needed to know the
    state, unless the look is to be `thorough`."""
    mounts = mountinfo.mounts()
    seen = {spec.name: observe(runtime_dir, spec, mounts) for spec in specs}
    unclear = [name for name, one in seen.items() if thorough or one.plainly() is None]
    workers = await launcher.states(unclear)
    return [
        _status(spec, seen[spec.name], workers.get(spec.name, WorkerState()), launcher, rates)
        for spec in specs
    ]


def _status(
    spec: MountSpec, seen: Observation, worker: WorkerState, launcher: Launcher, rates: "Rates"
) -> MountStatus:
    header, state = seen.header, seen.state(worker)
    up = header is not None and (seen.alive or seen.mount is not None)
    ledger_error = header.last_error if header else seen.damage
    mounted_ns = header.started_ns if header and up else 0
    return MountStatus(
        name=spec.name,
        type=spec.type,
        mountpoint=spec.mountpoint,
        state=state,
        pid=header.pid if header and seen.alive else worker.pid,
        uptime=(time.monotonic_ns() - mounted_ns) / 1e9 if mounted_ns else None,
        restarts=header.restarts if header and up else worker.restarts,
        knownInodes=header.known if header and up else 0,
        lookupCount=header.lookups if header and up else 0,
        openHandles=header.open_handles if header and up else 0,
        requests=header.requests if header else 0,
        errors=header.errors if header else 0,
        lastError=(ledger_error if seen.alive else worker.error or ledger_error) or None,
        unit=launcher.unit(spec.name),
        log=launcher.log(spec.name),
        autostart=spec.autostart,
        requestsPerSecond=rates.of(spec.name) if state == "serving" else 0.0,
        statusText=worker.status_text,
        features=list(header.features) if header and up else [],
        oldestRequest=seen.oldest,
    )


class Rates:
    """Requests per second, from samples of the total that are taken from time to time."""

    def __init__(self) -> None:
        self._samples: dict[str, deque[tuple[float, int]]] = {}

    def sample(self, name: str, requests: int) -> None:
        """Note the total of now."""
        samples, now = self._samples.setdefault(name, deque()), time.monotonic()
        if samples and samples[-1][1] > requests:
            samples.clear()  # it was mounted anew
        samples.append((now, requests))
        while now - samples[0][0] > RATE_SECONDS:
            samples.popleft()

    def of(self, name: str) -> float:
        """The mean over the last seconds; 0 when nothing is known."""
        samples = self._samples.get(name)
        if not samples or samples[-1][0] - samples[0][0] < LEAST_SECONDS:
            return 0.0
        (begin, first), (end, last) = samples[0], samples[-1]
        return (last - first) / (end - begin)


def lookups(
    runtime_dir: str, name: str, limit: int | None, unlinked: bool, minimum: int
) -> Iterator[LookupsReply]:
    """What the kernel knows of a mount, in parts; reads the whole ledger, so it takes a while."""
    with open_ledger(runtime_dir, name) as reader:
        every = list(reader.inodes())
    total = sum(inode.lookup_count for inode in every)
    chosen = [
        Inode(
            one.inode, one.lookup_count, one.open_handles, one.links, shown(one.path), one.unlinked
        )
        for one in every
        if one.lookup_count >= minimum and (one.unlinked or not unlinked)
    ][:limit]
    for start in range(0, max(len(chosen), 1), CHUNK):
        yield {"mount": name, "totalLookups": total, "inodes": chosen[start : start + CHUNK]}


def operations(runtime_dir: str, name: str) -> list[Operation]:
    """The statistics of a mount, most frequent operation first."""
    with open_ledger(runtime_dir, name) as reader:
        found = reader.operations()
    return [
        Operation(
            one.name,
            one.requests,
            one.errors,
            one.percentile(0.5) / 1e9,
            one.percentile(0.99) / 1e9,
            one.max_ns / 1e9,
        )
        for one in sorted(found, key=lambda one: -one.requests)
    ]


def open_ledger(runtime_dir: str, name: str) -> Reader:
    """The ledger of a mount; FusedError when it has none."""
    try:
        return Reader(ledger_path(runtime_dir, name))
    except FileNotFoundError:
        raise FusedError(f"'{name}' has not been mounted yet, so nothing is known of it") from None


def shown(path: str) -> str:
    """A path that any client can read: bytes that are not UTF-8 as \\xNN."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
