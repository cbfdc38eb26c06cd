"""How a mount is said to be doing, from what is known of it."""

import math
import os
import time

import pytest

from fused import mountinfo
from fused.launcher import Phase, WorkerState
from fused.ledger.reader import Header
from fused.manager import stale
from fused.manager.status import Observation, Rates, find, is_worker, shown
from fused.spec import MountSpec

MOUNT = mountinfo.Mount("/m", mountinfo.FS_TYPE, "m", 0, 40, ("rw",))
SPEC = MountSpec("m", "memory", "/m")


def header(state: str) -> Header:
    return Header(state, 1, 0, 1, 1, 40, (), 1, 1, 0, 0, 0, "")


@pytest.mark.parametrize(
    ("ledger", "alive", "mounted", "phase", "expected"),
    [
        (None, False, False, Phase.INACTIVE, "stopped"),
        (None, False, False, Phase.STARTING, "starting"),
        ("starting", True, False, Phase.STARTING, "starting"),
        ("serving", True, True, Phase.SERVING, "serving"),
        ("serving", True, True, Phase.INACTIVE, "serving"),  # started by hand
        ("serving", True, False, Phase.SERVING, "stopping"),  # detached, still used
        ("serving", False, True, Phase.SERVING, "recovering"),
        ("serving", False, True, Phase.RESTARTING, "recovering"),
        ("recovering", True, True, Phase.RESTARTING, "recovering"),
        ("serving", False, False, Phase.RESTARTING, "starting"),
        ("stopping", True, True, Phase.STOPPING, "stopping"),
        ("stopped", True, False, Phase.STOPPING, "stopping"),
        ("stopped", False, False, Phase.INACTIVE, "stopped"),
        ("serving", False, True, Phase.FAILED, "failed"),
        ("failed", False, False, Phase.FAILED, "failed"),
        ("stopped", False, False, Phase.FAILED, "failed"),
    ],
)
def test_the_state(
    ledger: str | None, alive: bool, mounted: bool, phase: Phase, expected: str
) -> None:
    seen = Observation(header(ledger) if ledger else None, alive, MOUNT if mounted else None)
    assert seen.state(WorkerState(phase)) == expected


@pytest.mark.parametrize(
    ("alive", "mounted", "worker", "hopeless"),
    [
        (False, True, WorkerState(Phase.FAILED), True),
        (False, True, WorkerState(Phase.INACTIVE), True),
        (False, False, WorkerState(Phase.FAILED), False),
        (True, True, WorkerState(Phase.INACTIVE), False),
        (False, True, WorkerState(Phase.RESTARTING), False),
        (False, True, WorkerState(Phase.STARTING), False),
        (False, True, WorkerState(Phase.SERVING), False),
        (True, True, WorkerState(Phase.STOPPING, 1, since=math.inf), False),
        (True, True, WorkerState(Phase.STOPPING, 1, since=time.monotonic() - 1000), True),
        (False, True, WorkerState(Phase.RESTARTING, None, since=time.monotonic() - 1000), False),
    ],
)
def test_a_mount_is_hopeless_only_when_no_worker_can_come(
    alive: bool, mounted: bool, worker: WorkerState, hopeless: bool
) -> None:
    seen = Observation(header("serving"), alive, MOUNT if mounted else None)
    assert stale.is_hopeless(seen, worker) is hopeless


def test_a_mount_of_the_same_name_that_is_somebody_elses_is_not_ours() -> None:
    other = MOUNT._replace(minor=41)
    assert find(SPEC, 40, [MOUNT, other]) == MOUNT
    assert find(SPEC, 42, [MOUNT, other]) is None
    assert find(SPEC, None, [MOUNT, other]) == other
    assert find(SPEC, None, [MOUNT._replace(fs_type="tmpfs")]) is None


def test_a_process_that_is_no_worker_is_none() -> None:
    assert not is_worker(os.getpid(), "m")
    assert not is_worker(0, "m")
    assert not is_worker(2**30, "m")


def test_rates_are_means_over_the_last_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    rates = Rates()
    assert rates.of("m") == 0
    for second in range(20):
        now = 100.0 + second
        rates.sample("m", 10 * second)
    assert rates.of("m") == pytest.approx(10)
    rates.sample("m", 5)  # it was mounted anew
    assert rates.of("m") == 0


def test_paths_are_shown_so_that_any_client_can_read_them() -> None:
    assert shown("/caf\udce9/ü") == "/caf\\xe9/ü"
