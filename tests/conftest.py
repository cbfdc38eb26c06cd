"""Fixtures: a place for mounts, and mounts that leave nothing behind."""

import itertools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

pytest.register_assert_rewrite("behaviours", "forked")

from supervised import Mount, Mounted, abandon, leftovers, wait_until  # noqa: E402  (after the rewrite is asked for)


@pytest.fixture(scope="session")
def place() -> Iterator[Path]:
    """A directory on a disk that everybody may search, unlike pytest's own; gone at the end, when
    no mount and no worker may be left in it."""
    directory = Path(tempfile.mkdtemp(prefix="fused-tests-", dir="/var/tmp"))
    os.chmod(directory, 0o755)
    plain = directory / "place"
    plain.mkdir()
    type_ = subprocess.check_output(["stat", "--file-system", "--format=%T", plain], text=True)
    if "ext2/ext3" not in type_:  # an overlay, say, whose behaviour is its own
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", plain], check=True)
    yield plain
    with suppress(AssertionError):  # the kernel takes a moment to end a loop device
        wait_until(lambda: not leftovers(plain), 3, "nothing is left")
    left = leftovers(plain)
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


@pytest.fixture
def kept(place: Path, numbers: Iterator[int]) -> Path:
    """A place for a store, not made yet."""
    return place / f"kept{next(numbers)}" / "store"
