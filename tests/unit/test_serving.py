"""What is counted while threads relieve each other, and of files that the kernel uses itself."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import llfuse
import pytest
from supervised import wait_until

from fused.ledger.writer import Ledger
from fused.worker import connection as wire
from fused.worker.backing import MASK, Backings
from fused.worker.crew import BODIES, Crew


@pytest.fixture
def nowhere() -> Iterator[int]:
    """A descriptor in place of the connection, which takes every answer."""
    fd = os.open("/dev/null", os.O_RDWR)
    yield fd
    os.close(fd)


class Serving:
    """A thread that has served a FORGET, and may rest."""

    def __init__(self, crew: Crew) -> None:
        self.done = threading.Event()
        self._crew = crew
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        with llfuse.lock:
            self._crew.check()
            self._crew.answer(2, BODIES["forget"], None)
            self._crew.check()
        self.done.set()

    def join(self) -> None:
        self._thread.join(5)
        assert not self._thread.is_alive()


def test_a_thread_rests_until_another_one_waits(nowhere: int) -> None:
    crew = Crew(nowhere, 2)
    crew.connect()
    other = Serving(crew)
    wait_until(lambda: len(crew._resting) == 1, 5, "the other thread rests")
    assert not other.done.is_set()
    with llfuse.lock:
        crew.check()
        with crew:
            assert other.done.wait(5), "it steps in"
        crew.check()
        assert crew._active == 2
    other.join()


def test_the_last_thread_and_those_before_the_connection_do_not_rest(nowhere: int) -> None:
    for crew, connected in ((Crew(nowhere, 1), True), (Crew(nowhere, 2), False)):
        if connected:
            crew.connect()
        Serving(crew).join()


@pytest.mark.parametrize("features", [0, wire.PASSTHROUGH])
def test_handles_are_counted_by_their_inodes(tmp_path: Path, nowhere: int, features: int) -> None:
    ledger = Ledger.create(str(tmp_path / "ledger"), 1, features)
    backings = Backings(nowhere, ledger)
    handles = []
    for node, flags in ((5, os.O_RDONLY), (6, os.O_RDWR), (5, os.O_WRONLY)):
        fh = backings.open_handle(node, nowhere, flags, False, 0)
        assert fh & MASK == 0 or not features, "/dev/null registers nothing"
        ledger.handles.add(fh, node, flags, False)
        handles.append(fh)
        backings.check()
    assert len(set(handles)) == 3
    assert not backings.written(5), "it is asked for what is written"
    heir = Backings(nowhere, ledger)
    heir.check()
    for fh in handles:
        heir.close_handle(fh)
        ledger.handles.remove(fh, False)
        heir.check()
