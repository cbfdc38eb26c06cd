"""Files that the kernel reads and writes itself, where it can (FUSE_PASSTHROUGH)."""

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from supervised import Mount, Mounted, wait_until

from fused.ledger.reader import Reader

BLOCK = os.urandom(1 << 16)


@pytest.fixture(params=["memory", "passthrough, shared", "passthrough, exclusive"])
def mount(
    request: pytest.FixtureRequest, mounted: Mounted, place: Path, numbers: Iterator[int]
) -> Mount:
    kind, _, cache = request.param.partition(", ")
    if kind == "memory":
        return mounted(kind)
    source = place / f"backing{next(numbers)}"
    source.mkdir()
    return mounted(kind, source=str(source), cache=cache)


def _passes_through(mount: Mount) -> bool:
    with Reader(str(mount.runtime / mount.name / "ledger")) as reader:
        return "PASSTHROUGH" in reader.header().features


def _asked(mount: Mount) -> set[str]:
    with Reader(str(mount.runtime / mount.name / "ledger")) as reader:
        return {operation.name for operation in reader.operations()}


def _use(path: Path) -> None:
    with open(path, "w+b", buffering=0) as file:
        for _ in range(32):
            file.write(BLOCK)
        file.seek(0)
        assert file.read() == BLOCK * 32
    assert path.read_bytes() == BLOCK * 32


def test_data_is_not_asked_for(mount: Mount) -> None:
    assert _passes_through(mount), "a kernel with FUSE_PASSTHROUGH (Linux 6.9) is needed here"
    mount.does(_use, mount.path / "file")
    assert not {"read", "write"} & _asked(mount)


def _go_on(path: Path, progress: Path, end: Path) -> None:
    """Write, read and map an open file, and tell how often, until `end` exists."""
    with open(path, "w+b", buffering=0) as file, open(progress, "wb", buffering=0) as told:
        number = 0
        while not end.exists():
            number += 1
            assert os.pwrite(file.fileno(), b"%08d" % number, number % 100 * 8) == 8
            assert os.pread(file.fileno(), 8, number % 100 * 8) == b"%08d" % number
            os.pwrite(told.fileno(), b"%08d" % number, 0)


def test_an_open_file_goes_on_while_there_is_no_worker(
    mount: Mount, place: Path, numbers: Iterator[int]
) -> None:
    progress, end = (place / f"{name}{next(numbers)}" for name in ("progress", "end"))

    def done() -> int:
        return int(progress.read_bytes() or b"0") if progress.exists() else 0

    with ThreadPoolExecutor() as pool:
        working = pool.submit(mount.does, _go_on, mount.path / "file", progress, end)
        try:
            wait_until(lambda: done() > 10 or working.done(), 5, "the file is in use")
            for _ in range(3):
                mount.kill(signal.SIGKILL)
                before = done()
                wait_until(lambda n=before: done() > n + 100 or working.done(), 5, "it goes on")
                mount.resume()
        finally:
            end.touch()
        working.result(10)
    mount.does(os.unlink, mount.path / "file")


@pytest.mark.parametrize("mount", ["memory"], indirect=True)
def test_a_removed_file_frees_its_space_whoever_registered_it(mount: Mount) -> None:
    """Nothing stays registered, be it with a worker that is dead."""

    def hold(path: Path, gate: Path) -> None:
        with open(path, "wb", buffering=0) as file:
            file.write(bytes(8 << 20))
            gate.touch()
            while gate.exists():
                time.sleep(0.01)

    gate = mount.directory / "gate"
    free = mount.does(os.statvfs, mount.path).f_bfree
    with ThreadPoolExecutor() as pool:
        holding = pool.submit(mount.does, hold, mount.path / "held", gate)
        wait_until(gate.exists, 5, "the file is written")
        mount.kill(signal.SIGKILL)
        mount.resume()
        mount.does(os.unlink, mount.path / "held")
        gate.unlink()
        holding.result(10)
    wait_until(
        lambda: mount.does(os.statvfs, mount.path).f_bfree == free, 3, "all space is free again"
    )
