"""Fixtures: a place for mounts, and mounts that leave nothing behind."""

import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

pytest.register_assert_rewrite("behaviours", "forked")

from supervised import Mount, abandon, leftovers  # noqa: E402  (after the rewrite is asked for)

Mounted = Callable[..., Mount]


@pytest.fixture(scope="session")
def place() -> Iterator[Path]:
    """A directory on a disk that everybody may search, unlike pytest's own; gone at the end, when
    no mount and no worker may be left in it."""
    directory = Path(tempfile.mkdtemp(prefix="fused-tests-", dir="/var/tmp"))
    os.chmod(directory, 0o755)
    yield directory
    left = leftovers(directory)
    abandon(directory)
    shutil.rmtree(directory)
    assert not left, f"left behind: {left}"


@pytest.fixture(scope="session")
def numbers() -> Iterator[int]:
    """A number that no other mount of the session has."""
    return itertools.count()


@pytest.fixture
def mounted(place: Path, numbers: Iterator[int]) -> Iterator[Mounted]:
    """Starts a mount: `mounted("memory", size="1MiB")`.  It is stopped after the test, which
    fails when the worker's log holds a complaint that was not announced."""
    with ExitStack() as stack:

        def start(type_name: str, **options: Any) -> Mount:
            directory = place / f"mount{next(numbers)}"
            return stack.enter_context(Mount(directory, type_name, **options))

        yield start
