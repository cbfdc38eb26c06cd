"""Medians, ratios and goals, as text and JSON."""

import os
import platform
import statistics
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from bench.rounds import Sample
from bench.rows import ROWS

UNITS = {row.name: row.unit for row in ROWS}
Key = tuple[str, int]  # row, clients


class Goal(NamedTuple):
    """`who` is to reach so many times the speed of `than` in these rows (none given: in all)."""

    field: str
    who: str
    than: str
    ratio: float
    rows: tuple[str, ...] = ()
    clients: tuple[int, ...] = (1, 4)


ONE = (1,)
OURS = ("fused shared", "fused exclusive")
FSYNCED = ("write 4 KiB, fsync", "write 1 MiB, fsync")
WITHOUT_FSYNC = ("llfuse", "pyfuse3")  # their examples have no handler: the call returns at once
WARM = ("read 4 KiB, warm", "read 1 MiB, warm")
COLD = ("read 4 KiB, cold", "read 1 MiB, cold")
NAMES = ("create+write", "stat, cold", "unlink", "rename", "readdir")
GOALS = (
    *(Goal("disk", who, than, 1.0) for who in OURS for than in ("llfuse", "bindfs")),
    *(Goal("disk", who, "llfuse", 1.5, ("create+write", "random read 4 KiB")) for who in OURS),
    *(Goal("disk", who, "llfuse", 1.5, clients=(4,)) for who in OURS),
    Goal("disk", "fused exclusive", "bindfs", 3.0, ("write 4 KiB",)),
    Goal("disk", "fused exclusive", "native", 0.9, FSYNCED, ONE),
    Goal("disk", "fused exclusive", "native", 0.7, ("write 4 KiB",), ONE),
    Goal("disk", "fused exclusive", "native", 0.25, ("write 1 MiB",), ONE),
    Goal("disk", "fused exclusive", "native", 0.85, COLD, ONE),
    Goal("disk", "fused exclusive", "native", 0.9, WARM, ONE),
    Goal("memory", "fused memory", "tmpfs", 0.5, ("write 4 KiB",), ONE),
    Goal("memory", "fused memory", "tmpfs", 0.4, ("write 1 MiB",), ONE),
    Goal("memory", "fused memory", "tmpfs", 0.9, WARM, ONE),
    Goal("memory", "fused memory", "tmpfs", 0.4, COLD[:1], ONE),
    Goal("memory", "fused memory", "tmpfs", 0.25, COLD[1:], ONE),
    Goal("memory", "fused memory", "llfuse", 2.0, NAMES),
)


class Table:
    """The samples of one field."""

    def __init__(self, field: str, contenders: tuple[str, ...], samples: Iterable[Sample]) -> None:
        self.field, self.contenders = field, contenders
        self._rates: dict[Key, dict[str, list[float]]] = {}
        self.errors: dict[str, None] = {}
        for sample in samples:
            rates = self._rates.setdefault((sample.row, sample.clients), {})
            if sample.error:
                what = f"{sample.contender}, {sample.row}: {sample.error}"
                self.errors[what] = None
            else:
                rates.setdefault(sample.contender, []).append(sample.rate)

    @property
    def rows(self) -> list[Key]:
        """In the order of measurement, those with one client first."""
        return sorted(self._rates, key=lambda key: key[1])

    def median(self, key: Key, contender: str) -> float | None:
        """Units per second; None where nothing was measured."""
        rates = self._rates[key].get(contender)
        return statistics.median(rates) if rates else None

    def ratio(self, key: Key, who: str, than: str) -> float | None:
        """How many times as fast."""
        ours, theirs = self.median(key, who), self.median(key, than)
        return ours / theirs if ours and theirs else None

    def verdicts(self) -> Iterator[str]:
        """A line for each goal that applies: the ratio that comes out worst, and what fails."""
        for goal in GOALS:
            ratios = {
                title(key): ratio
                for key in self.rows
                if goal.field == self.field
                and key[0] in (goal.rows or UNITS)
                and key[1] in goal.clients
                and not (goal.than in WITHOUT_FSYNC and key[0] in FSYNCED)
                and (ratio := self.ratio(key, goal.who, goal.than)) is not None
            }
            if ratios:
                short = {row: ratio for row, ratio in ratios.items() if ratio < goal.ratio}
                rows = short or {min(ratios, key=ratios.__getitem__): min(ratios.values())}
                yield (
                    f"{'FAILS' if short else 'holds':7}{goal.who} / {goal.than} "
                    f">= {goal.ratio:g} in {len(ratios) - len(short)} of {len(ratios)}: "
                    + ", ".join(f"{row} {ratio:.2f}" for row, ratio in rows.items())
                )

    def text(self) -> str:
        """The table, and the goals."""
        native = self.contenders[0]
        lines = [f"{self.field:27}" + "".join(f"{name:>21}" for name in self.contenders)]
        for key in self.rows:
            line = f"{title(key):27}"
            for name in self.contenders:
                median, ratio = self.median(key, name), self.ratio(key, name, native)
                cell = "failed" if median is None else _shown(median, UNITS[key[0]])
                line += f"{cell:>15}" + (f"{ratio:6.2f}" if ratio else " " * 6)
            lines.append(line)
        lines.append(f"(after each speed: times that of {native})")
        if quick := ", ".join(name for name in WITHOUT_FSYNC if name in self.contenders):
            lines.append(f"({quick}: no fsync is carried out, so these rows are not compared)")
        lines += self.verdicts()
        return "\n".join(lines + [f"failed: {error}" for error in self.errors])

    def json(self) -> dict[str, Any]:
        """Everything measured, in units per second."""
        return {
            "field": self.field,
            "contenders": self.contenders,
            "rows": [
                {
                    "row": row,
                    "clients": clients,
                    "unit": "bytes/s" if UNITS[row] == "MB/s" else "1/s",
                    "rates": self._rates[row, clients],
                    "medians": {
                        name: self.median((row, clients), name) for name in self.contenders
                    },
                }
                for row, clients in self.rows
            ],
            "errors": list(self.errors),
        }


def title(key: Key) -> str:
    """How a row is called."""
    row, clients = key
    return row if clients == 1 else f"{row} x{clients}"


def _shown(rate: float, unit: str) -> str:
    if unit == "MB/s":
        return f"{rate / 1e6:,.0f} MB/s"
    return f"{rate:,.{0 if rate >= 100 else 2}f} /s"


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    return {
        "kernel": platform.release(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "processors": os.cpu_count(),
    }
