"""The command line of the bench."""

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterable
from fnmatch import fnmatch
from itertools import groupby
from pathlib import Path

from supervised import REPOSITORY, abandon

from bench import contenders
from bench.contenders import Field
from bench.data import Sizes, make_project
from bench.peers import Peers
from bench.plot import svg
from bench.rounds import Runner, Sample
from bench.rows import ROWS, Row
from bench.table import Table, machine, title

QUICK = 8  # times less data


def arguments() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(prog="bench", description="Speed beside peers.")
    add = parser.add_argument
    add("rows", nargs="*", metavar="ROW", help="only rows like this, such as 'write*'")
    add("--list", action="store_true", help="list the rows and end")
    add("--quick", action="store_true", help="a rough table in few minutes")
    add("--field", choices=("disk", "memory"), help="only these contenders")
    add(
        "--only", action="append", metavar="CONTENDER", help="only native and contenders like this"
    )
    add("--threads", type=int, nargs="*", metavar="N", help="fused with so many threads, no peers")
    add("--clients", type=int, choices=(1, 4), help="only rows with so many clients")
    add("--rounds", type=int, default=3, help="turns of each contender (3)")
    add("--seconds", type=float, default=0.5, help="that a turn takes at most (0.5)")
    add("--directory", type=Path, default=REPOSITORY / "run/bench", help="where to work")
    add("--json", type=Path, help="write all that was measured to this file")
    add("--svg", type=Path, help="write a plot to this file")
    return parser.parse_args()


def chosen(wanted: argparse.Namespace) -> list[tuple[Row, int]]:
    """The rows to measure, each with a number of clients."""
    rows = [
        row
        for row in ROWS
        if not wanted.rows or any(fnmatch(row.name, pattern) for pattern in wanted.rows)
    ]
    pairs = [(row, n) for n in (1, 4) for row in rows if n == 1 or row.four]
    return [(row, n) for row, n in pairs if wanted.clients in (None, n)]


def told(samples: Iterable[Sample]) -> list[Sample]:
    """The samples; each row is told when it is complete."""
    result = []
    for key, row in groupby(samples, key=lambda sample: (sample.row, sample.clients)):
        result += (taken := list(row))
        names = dict.fromkeys(sample.contender for sample in taken)
        best = {name: max(s.rate for s in taken if s.contender == name) for name in names}
        what = ", ".join(f"{name} {rate:.4g}" for name, rate in best.items())
        print(f"{title(key)}: {what}", file=sys.stderr, flush=True)
    return result


def run(wanted: argparse.Namespace, place: Path, peers: Peers) -> list[Table]:
    """Measure, in `place`, an empty directory on a disk."""
    sizes = Sizes().over(QUICK if wanted.quick else 1)
    project = place / "project"
    project.mkdir()
    make_project(project, 600 if not wanted.quick else 100)
    tables = []
    fields: tuple[Field, ...]
    with contenders.ext4(place) as source:
        fields = (contenders.disk(source, peers), contenders.memory(peers))
        if wanted.threads:
            fields = (contenders.threads(source, wanted.threads),)
        for field in fields:
            if wanted.field in (None, field.name):
                field = _only(field, wanted.only)
                directory = place / field.name
                with Runner(field, directory, project, sizes, wanted.seconds) as runner:
                    samples = told(runner.measure(chosen(wanted), wanted.rounds))
                names = tuple(contender.name for contender in field.contenders)
                tables.append(Table(field.name, names, samples))
                print(tables[-1].text(), end="\n\n", flush=True)
    return tables


def _only(field: Field, patterns: list[str] | None) -> Field:
    if patterns is None:
        return field
    first, *rest = field.contenders
    rest = [c for c in rest if any(fnmatch(c.name, pattern) for pattern in patterns)]
    return field._replace(contenders=(first, *rest))


def main() -> None:
    """Measure and report."""
    wanted = arguments()
    if wanted.list:
        print("\n".join(row.name for row in ROWS))
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by a signal"))
    began = time.monotonic()
    peers = Peers(wanted.directory / "peers")
    peers.fetch()
    place = Path(tempfile.mkdtemp(prefix="run-", dir=wanted.directory))
    os.chmod(place, 0o755)
    try:
        tables = run(wanted, place, peers)
    finally:
        abandon(place)
        shutil.rmtree(place)
    print(f"{time.monotonic() - began:.0f} s, {machine()}")
    if wanted.json:
        content = {"machine": machine(), "fields": [table.json() for table in tables]}
        wanted.json.write_text(json.dumps(content, indent=1) + "\n")
    if wanted.svg:
        wanted.svg.write_text(svg(tables))


if __name__ == "__main__":
    main()
