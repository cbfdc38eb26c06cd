"""Contenders take turns at each row."""

import os
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import NamedTuple

from forked import Stuck, in_child
from supervised import abandon

from bench.clients import Work, rate
from bench.contenders import Contender, Field, Served
from bench.data import Data, Sizes
from bench.rows import Place, Row

QUIET = 0.05  # seconds without work, after which a server counts as idle


class Sample(NamedTuple):
    """One measurement; `rate` is zero when it failed, `error` says why."""

    field: str
    row: str
    clients: int
    contender: str
    rate: float
    error: str = ""


class Runner:
    """The contenders of a field, mounted below `directory`.  A context manager."""

    def __init__(
        self, field: Field, directory: Path, project: Path, sizes: Sizes, seconds: float
    ) -> None:
        self.field, self.directory, self.seconds = field, directory, seconds
        self._stack = ExitStack()
        self._served: dict[str, Served] = {}
        self._data: dict[str, Data] = {}
        self._project, self._sizes = project, sizes

    def __enter__(self) -> "Runner":
        with self._stack:
            if self.field.shown is not None:
                self._fill(Data(self.field.shown, self._sizes, self._project))
            for contender in self.field.contenders:
                self._mount(contender)
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _mount(self, contender: Contender) -> None:
        directory = self.directory / contender.name.replace(" ", "-")
        served = self._stack.enter_context(contender.serve(directory))
        self._served[contender.name] = served
        data = Data(served.root, self._sizes.over(contender.scale), self._project)
        self._data[contender.name] = data
        if self.field.shown is None:
            self._fill(data)

    def _fill(self, data: Data) -> None:
        in_child(data.fill, limit=300, rescue=self._rescue)

    def _rescue(self) -> None:
        abandon(self.directory)

    def measure(self, rows: Iterable[tuple[Row, int]], rounds: int) -> Iterator[Sample]:
        """Each row with so many clients, in so many rounds."""
        for row, clients in rows:
            for number in range(rounds):
                count = len(self.field.contenders)
                for i in range(count):
                    yield self._once(row, clients, self.field.contenders[(number + i) % count])

    def _once(self, row: Row, clients: int, contender: Contender) -> Sample:
        who = (self.field.name, row.name, clients, contender.name)
        data = self._data[contender.name]
        own = data.root / f"own-{contender.name.replace(' ', '-')}"

        def work(i: int) -> Work:
            (own / str(i)).mkdir()
            return row.work(Place(data, own / str(i), i, clients))

        try:
            in_child(_empty, own, rescue=self._rescue)
            speed = rate(work, clients, self.seconds, lambda: self._chill(row), self._rescue)
        except Exception as error:
            return Sample(*who, 0.0, repr(error))
        finally:
            with suppress(OSError, Stuck):
                in_child(shutil.rmtree, own, True, rescue=self._rescue)
        return Sample(*who, speed)

    def _chill(self, row: Row) -> None:
        """Have the caches as the row wants them, and the servers idle."""
        if row.cold:
            Path("/proc/sys/vm/drop_caches").write_text("3")
            if row.cold != "disk" and self.field.shown is not None:
                in_child(Data(self.field.shown, self._sizes, self._project).warm, row.cold)
        self._settle()

    def _settle(self, limit: float = 10.0) -> None:
        """Wait until no server has anything left to do, FORGETs after a drop for one."""
        deadline = time.monotonic() + limit
        before = None
        while (now := self._cpu_times()) != before and time.monotonic() < deadline:
            before = now
            time.sleep(QUIET)

    def _cpu_times(self) -> list[list[str]]:
        times = []
        for served in self._served.values():
            with suppress(OSError):
                if served.pid:
                    text = Path(f"/proc/{served.pid}/stat").read_text()
                    times.append(text.rpartition(")")[2].split()[11:13])
        return times


def _empty(directory: Path) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    os.mkdir(directory)
