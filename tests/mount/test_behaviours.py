"""Each behaviour on the kernel's own file systems first, then on ours."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import behaviours
import pytest
from behaviours import Behaviour
from forked import in_child
from supervised import Mount

NATIVE = ("tmpfs", "disk")
OURS = ("memory", "memory-persist", "passthrough-shared", "passthrough-exclusive")


class Target(NamedTuple):
    """A file system under test."""

    path: Path
    native: bool
    rescue: Callable[[], None] | None = None
    complaints: Callable[[], str] = str


def _name(value: object) -> str:
    return getattr(value, "__name__", str(value))


@pytest.fixture(scope="module", params=[*NATIVE, *OURS])
def target(
    request: pytest.FixtureRequest, place: Path, numbers: Iterator[int]
) -> Iterator[Target]:
    """One mount for all behaviours."""
    kind, _, way = request.param.partition("-")
    directory = place / f"behaviours{next(numbers)}"
    if kind == "disk":
        directory.mkdir()
        yield Target(directory, True)
    elif kind == "tmpfs":
        directory.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", directory], check=True)
        yield Target(directory, True)
        subprocess.run(["umount", directory], check=True)
    else:
        options = {}
        if way:
            source = place / f"source{next(numbers)}"
            source.mkdir()
            options = {"source": str(source), "cache": way}
        if way == "persist":
            options = {"persist": str(source), "size": "1GiB"}
        with Mount(directory, kind, **options) as mount:
            yield Target(mount.path, False, mount.abort, mount.complaints)


def _show(behaviour: Behaviour, root: Path) -> None:
    os.umask(0o022)
    os.mkdir(root)
    try:
        behaviour(root)
    finally:
        os.chdir("/")
        os.umask(0o022)
        shutil.rmtree(root)


@pytest.mark.parametrize("behaviour", behaviours.ALL, ids=_name)
def test_behaviour(target: Target, behaviour: Behaviour) -> None:
    different = behaviours.ONLY_FUSE if target.native else behaviours.BEYOND_FUSE
    root = target.path / behaviour.__name__
    if behaviour.__name__ in different:
        with pytest.raises((OSError, AssertionError)):
            in_child(_show, behaviour, root, rescue=target.rescue)
    else:
        in_child(_show, behaviour, root, rescue=target.rescue)
    assert not (text := target.complaints()), f"the worker complained:\n{text}"


def test_the_known_differences_name_behaviours() -> None:
    names = [behaviour.__name__ for behaviour in behaviours.ALL]
    assert len(set(names)) == len(names)
    assert {*behaviours.BEYOND_FUSE, *behaviours.ONLY_FUSE} <= set(names)
