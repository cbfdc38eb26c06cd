"""Which threads serve, and what fused does to be quick."""

import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from slow import SIZE
from supervised import Mount, Mounted, wait_until

HERE = Path(__file__).parent
LATENCY = "/dev/cpu_dma_latency"
GOVERNOR = Path("/sys/devices/system/cpu/cpuidle/current_governor")


@pytest.fixture
def gate(place: Path, numbers: Iterator[int]) -> Path:
    """While this file exists, the slow file system lets nobody read."""
    return place / f"gate{next(numbers)}"


@pytest.fixture
def mirror(mounted: Mounted, gate: Path) -> Mount:
    """A mirror of the slow file system, with four threads."""
    slow = mounted("slow:Slow", python_path=(HERE,), gate=str(gate), threads=6)
    return mounted("passthrough", source=str(slow.path), threads=4)


def _readers(mount: Mount) -> int:
    """How many threads of the worker wait for a request."""
    links = {fd: os.readlink(f"/proc/{mount.pid}/fd/{fd}") for fd in _fds(mount)}
    fuse = {int(fd) for fd, link in links.items() if link == "/dev/fuse"}
    count = 0
    for task in os.listdir(f"/proc/{mount.pid}/task"):
        call = Path(f"/proc/{mount.pid}/task/{task}/syscall").read_text().split()
        count += call[0] in ("0", "63") and int(call[1], 16) in fuse
    return count


def _fds(mount: Mount) -> list[str]:
    return os.listdir(f"/proc/{mount.pid}/fd")


def _source_is_waited_for(mount: Mount, number: int) -> bool:
    """Whether so many threads of the worker read from the source."""
    count = 0
    for task in os.listdir(f"/proc/{mount.pid}/task"):
        call = Path(f"/proc/{mount.pid}/task/{task}/syscall").read_text().split()
        count += call[0] in ("327", "286")  # preadv2; x86-64, and aarch64 and riscv64
    return count == number


def _read(path: Path) -> bytes:
    return path.read_bytes()


def test_one_thread_takes_requests_while_none_waits(mirror: Mount) -> None:
    wait_until(lambda: _readers(mirror) == 1, 5, "one thread waits for requests")
    for _ in range(20):
        mirror.does(os.stat, mirror.path)
        assert _readers(mirror) <= 1


def test_who_waits_for_a_slow_source_holds_up_nobody(mirror: Mount, gate: Path) -> None:
    gate.touch()
    try:
        with ThreadPoolExecutor() as pool:
            reading = [pool.submit(mirror.does, _read, mirror.path / str(i)) for i in (2, 3, 4)]
            wait_until(lambda: _source_is_waited_for(mirror, 3), 5, "three threads wait")
            for name in ("5", "6", "7"):
                assert mirror.does(os.stat, mirror.path / name).st_size == SIZE
            assert not any(result.done() for result in reading)
            gate.unlink()
            assert [result.result(5) for result in reading] == [
                str(i).encode() * SIZE for i in (2, 3, 4)
            ]
    finally:
        gate.unlink(missing_ok=True)

    def calm() -> bool:
        for name in ("5", "6", "7", "8", "9"):
            assert mirror.does(_read, mirror.path / name) == name.encode() * SIZE
        return _readers(mirror) == 1

    time.sleep(0.01)
    wait_until(calm, 10, "the threads that stepped in rest again")


@contextmanager
def _asked(mount: Mount) -> Iterator[None]:
    """Requests without a pause for the time of the block."""
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            mount.does(_many, mount.path)

    with ThreadPoolExecutor() as pool:
        asking = pool.submit(ask)
        try:
            yield
        finally:
            done.set()
        asking.result(20)


def _many(path: Path) -> None:
    for number in range(2000):
        assert not os.path.lexists(path / f"absent{number}")


def _holds_processors_awake(mount: Mount) -> bool:
    for fd in _fds(mount):
        try:
            if os.readlink(f"/proc/{mount.pid}/fd/{fd}") == LATENCY:
                return True
        except FileNotFoundError:  # just closed
            continue
    return False


def test_processors_are_kept_awake_while_requests_flow_only(mounted: Mounted) -> None:
    mount = mounted("memory")
    useful = GOVERNOR.exists() and GOVERNOR.read_text() == "haltpoll\n" and os.path.exists(LATENCY)
    assert not _holds_processors_awake(mount)
    with _asked(mount):
        if useful:
            wait_until(lambda: _holds_processors_awake(mount), 5, "processors are kept awake")
        else:
            time.sleep(0.2)
            assert not _holds_processors_awake(mount)
    wait_until(lambda: not _holds_processors_awake(mount), 2, "processors may sleep again")


def test_the_end_of_a_mount_does_not_wait_for_threads_that_rest(mirror: Mount) -> None:
    wait_until(lambda: _readers(mirror) == 1, 5, "the others rest")
    began = time.monotonic()
    mirror.stop()
    assert time.monotonic() - began < 2
    mirror.start()
