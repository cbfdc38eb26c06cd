"""The power is cut at any moment: a persistent memory mount comes up with all that was fsynced."""

import os
import random
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from forked import in_child
from supervised import REPOSITORY, Mount

from fault.cautious import Client, Step, wrong
from fault.recording import FLUSH, Disk, Entry, entries

SIZE, INODES = "6MiB", 200
STEPS = 60  # of the client, twice
CUTS = 70
LIMIT = 25.0  # seconds for the cuts, on a machine that is too busy for so many


class Recorded(NamedTuple):
    """A store's life, as its disk and as its client saw it."""

    journal: list[Entry]
    steps: dict[str, list[Step]]
    served: int  # the journal's length when the mount was first ready


@pytest.fixture
def ram() -> Iterator[Path]:
    """A place in memory, for many images."""
    with tempfile.TemporaryDirectory(prefix="fused-cuts-", dir="/dev/shm") as directory:
        yield Path(directory)


def _record(place: Path, number: int, ram: Path, seed: int) -> Recorded:
    """Have a client work on a store that lies on a recording disk."""
    log = ram / "journal"
    with Mount(
        place / f"disk{number}",
        "fault.recording:Recording",
        python_path=(REPOSITORY / "tests",),
        log=str(log),
    ) as disk:
        keys = {"size": SIZE, "inodes": INODES, "persist": str(disk.path)}
        with Mount(place / f"recorded{number}", "memory", **keys) as mount:
            served = log.stat().st_size
            client = Client(mount.path, log, seed)
            client.steps = in_child(client.work, STEPS, rescue=mount.abort)
            mount.kill()
            mount.resume()
            client.chance.seed(seed + 1)
            client.steps = in_child(client.work, STEPS, rescue=mount.abort)
        everything = log.stat().st_size
        for steps in client.steps.values():
            steps[-1].synced = steps[-1].synced or everything
    return Recorded(entries(log), client.steps, served)


def _sample(recorded: Recorded, chance: random.Random) -> dict[int, random.Random | None]:
    """Numbers of the notes after which the power is cut; by what chance cached writes are lost."""
    journal = recorded.journal
    making = sum(entry.end <= recorded.served for entry in journal)
    flushes = [i for i in range(making, len(journal)) if journal[i].what == FLUSH]
    points = [making, len(journal) - 1, *chance.sample(range(making), CUTS // 10)]
    points += chance.sample(range(making, len(journal)), CUTS // 3)
    for i in chance.sample(flushes, min(len(flushes), CUTS // 4)):
        points += [i, i - 1]  # all before it is in the cache still
    lossy = {i: chance.random() < 0.6 for i in sorted(points)}
    return {i: random.Random(chance.random()) if lossy[i] else None for i in lossy}


def _comes_up(place: Path, directory: Path, recorded: Recorded, cut: int) -> None:
    """A new worker mounts what a cut has left, and all that was promised is there."""
    keys = {"size": SIZE, "inodes": INODES, "persist": str(directory)}
    with Mount(place, "memory", **keys) as mount:
        found = in_child(wrong, mount.path, recorded.steps, cut, rescue=mount.abort)
        assert not found, found
        assert set(os.listdir(directory)) == {"store.ext4"}
    image = directory / "store.ext4"
    checked = subprocess.run(["e2fsck", "-fn", image], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("seed", [1, int(time.time())], ids=["replayed", "new"])
def test_all_that_was_fsynced_survives_a_power_cut_at_any_point(
    place: Path, numbers: Iterator[int], ram: Path, seed: int
) -> None:
    recorded = _record(place, next(numbers), ram, seed)
    assert len(recorded.journal) > 500
    assert sum(bool(step.synced) for steps in recorded.steps.values() for step in steps) > 30
    cuts = _sample(recorded, random.Random(seed))
    disk, deadline, done = Disk(), time.monotonic() + LIMIT / 2, 0
    for i, entry in enumerate(recorded.journal):
        disk.take(entry)
        late = time.monotonic() > deadline - LIMIT / 2 * (1 - i / len(recorded.journal))
        if i not in cuts or (late and i != len(recorded.journal) - 1):
            continue
        directory = ram / f"cut{i}"
        directory.mkdir()
        disk.cut(directory, cuts[i])
        try:
            _comes_up(place / f"cut{next(numbers)}", directory, recorded, entry.end)
        except BaseException as error:
            how = "some of the cached writes" if cuts[i] else "all cached writes"
            error.add_note(f"seed {seed}, cut after note {i} of {len(recorded.journal)}, {how}")
            raise
        shutil.rmtree(directory)
        done += 1
    assert done > CUTS // 4
