"""Each behaviour on the kernel's own file systems first, then on ours."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import behaviours
import native
import pytest
from behaviours import Behaviour
from forked import in_child
from supervised import Mount

TESTS = Path(__file__).parents[1]
NATIVE = ("tmpfs", "ext4", "xfs")
OURS = (
    "memory",
    "memory-persist",
    "passthrough-ext4-shared",
    "passthrough-ext4-exclusive",
    "passthrough-xfs-shared",
    "passthrough-xfs-exclusive",
    "passthrough-tmpfs-shared",
    "asked-ext4-shared",
    "asked-ext4-exclusive",
)
TYPES = {"asked": "asked:Asked"}


class Target(NamedTuple):
    """A file system under test."""

    path: Path
    native: bool
    on_xfs: bool
    rescue: Callable[[], None] | None = None
    complaints: Callable[[], str] = str


def _name(value: object) -> str:
    return getattr(value, "__name__", str(value))


@pytest.fixture(scope="module", params=[*NATIVE, *OURS])
def target(
    request: pytest.FixtureRequest, place: Path, numbers: Iterator[int]
) -> Iterator[Target]:
    """One mount for all behaviours.  The kernel's file systems are new ones, also below a
    passthrough: what the machine's own disk holds is nothing to rely on."""
    directory = place / f"behaviours{next(numbers)}"
    kind, *of = request.param.split("-")
    with ExitStack() as stack:
        if kind in NATIVE:
            yield Target(stack.enter_context(native.mounted(kind, directory)), True, kind == "xfs")
            return
        options: dict[str, Any] = {}
        if of == ["persist"]:
            options = {"persist": str(place / f"persist{next(numbers)}"), "size": "1GiB"}
        elif of:
            source_kind, cache = of
            source = place / f"source{next(numbers)}"
            stack.enter_context(native.mounted(source_kind, source))
            options = {"source": str(source), "cache": cache}
        type_ = TYPES.get(kind, kind)
        mount = stack.enter_context(Mount(directory, type_, python_path=(TESTS,), **options))
        yield Target(mount.path, False, "xfs" in of, mount.abort, mount.complaints)


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
    root = target.path / behaviour.__name__
    if behaviours.expected_to_differ(root.name, native=target.native, on_xfs=target.on_xfs):
        with pytest.raises((OSError, AssertionError)):
            in_child(_show, behaviour, root, rescue=target.rescue)
    else:
        in_child(_show, behaviour, root, rescue=target.rescue)
    assert not (text := target.complaints()), f"the worker complained:\n{text}"


def test_the_known_differences_name_behaviours() -> None:
    names = [behaviour.__name__ for behaviour in behaviours.ALL]
    assert len(set(names)) == len(names)
    assert {*behaviours.BEYOND_FUSE, *behaviours.ONLY_FUSE} <= set(names)
    assert {*behaviours.BEYOND_XFS, *behaviours.ONLY_XFS} <= set(names)
