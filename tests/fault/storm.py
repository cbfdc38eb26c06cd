"""Kill the worker of a mount again and again while clients work on it, and compare.

`python -m fault.storm SECONDS [SEED] [--kind KIND] [--source TYPE]` with tests/ on the path (`make
fault SECONDS=… SEED=…`) storms each kind of mount in turn for so long and prints a table.

All chance comes from one seed: what each client does, when workers are killed, and by what.  A
failure names it, and the same command with that seed does all of it again.  Where in a request a
kill falls depends on the machine too, so a rare failure may take a few replays.
"""

import argparse
import os
import random
import signal
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import native
from forked import in_child
from supervised import Mount, wait_until

from fault.world import World
from fused.ledger.reader import Reader

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "memory": ("memory", {"size": "256MiB"}),
    "memory, persistent": ("memory", {"size": "256MiB", "persist": "{source}"}),
    "passthrough, shared": ("passthrough", {"source": "{source}", "cache": "shared"}),
    "passthrough, exclusive": ("passthrough", {"source": "{source}", "cache": "exclusive"}),
    "exclusive, all asked": ("asked:Asked", {"source": "{source}", "cache": "exclusive"}),
}
TESTS = Path(__file__).parents[1]
ANNOUNCED = ("the mount was resumed", "Fatal Python error: (Segmentation fault|Aborted)")
CLIENTS = 4
SIGNALS = [signal.SIGKILL] * 7 + [signal.SIGSEGV, signal.SIGABRT, signal.SIGUSR2]
PAUSES = (0.0, 0.01, 0.05, 0.2)  # seconds at most between a worker's READY=1 and its end
A_DAY = 86_400.0


class Report(NamedTuple):
    """What a storm saw.  Stalls are in seconds: from a kill to the end of the last call that was
    begun before the successor was ready; a kill that delayed no call by 5 ms is not among them."""

    kills: int
    calls: int
    stalls: list[float]

    def stall(self, fraction: float) -> float:
        """The stall that so many of the kills stayed below."""
        ordered = sorted(self.stalls) or [0.0]
        return ordered[min(len(ordered) - 1, int(fraction * len(ordered)))]


Work = tuple[int, list[tuple[float, float]]]  # calls made; beginning and end of the slow ones


def clients(root: str, seed: int, stop: str) -> Work:
    """Work until the file `stop` is there.  Runs in a child."""
    os.umask(0)
    worlds = [World(f"{root}/client{number}", seed + number) for number in range(CLIENTS)]
    failures: list[BaseException] = []

    def work(world: World) -> None:
        try:
            while not failures and not os.path.exists(stop):
                for _ in range(50):
                    world.step()
            world.compare()
        except BaseException as error:
            failures.append(error)
            world.abandon()

    threads = [threading.Thread(target=work, args=(world,)) for world in worlds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return sum(w.calls for w in worlds), [call for w in worlds for call in w.slow]


def storm(mount: Mount, seed: int, enough: Callable[[int, float], bool]) -> Report:
    """Storm a mount until `enough(kills, seconds)`.  AssertionError when anything differs."""
    mount.announce(*ANNOUNCED)
    stop = mount.directory / "stop"
    stop.unlink(missing_ok=True)
    killed: list[tuple[float, float]] = []
    with ThreadPoolExecutor(1) as pool:
        arguments = str(mount.path), seed, str(stop)
        work = pool.submit(in_child, clients, *arguments, limit=A_DAY, rescue=mount.abort)
        try:
            _kill(mount, random.Random(seed), work, killed, enough)
            stop.touch()
            calls, slow = work.result(60)
        except BaseException as error:
            stop.touch()
            mount.abort()
            log = mount.log.read_text(errors="replace")[-3000:]
            error.add_note(f"seed {seed}, {len(killed)} kills; the log ends:\n{log}")
            raise
    return Report(len(killed), calls, _stalls(killed, slow))


def _kill(
    mount: Mount,
    chance: random.Random,
    work: "Future[Work]",
    killed: list[tuple[float, float]],
    enough: Callable[[int, float], bool],
) -> None:
    """Kill worker after worker; `killed` gets the moments of each kill and of readiness after it.
    Ends early when the clients do."""
    began = time.monotonic()
    while not work.done() and not enough(len(killed), time.monotonic() - began):
        time.sleep(chance.choice(PAUSES) * chance.random())
        moment = time.monotonic()
        mount.kill(chance.choice(SIGNALS))
        mount.start()
        killed.append((moment, time.monotonic()))


def _stalls(killed: list[tuple[float, float]], slow: list[tuple[float, float]]) -> list[float]:
    """For each kill that delayed a call: until when."""
    stalls = []
    for moment, ready in killed:
        ends = [end for start, end in slow if start < ready and end > moment]
        if ends:
            stalls.append(max(ends) - moment)
    return stalls


def only_the_root_is_known(mount: Mount) -> None:
    """After everything is closed and the caches are dropped, lookup counts must be exact: the
    kernel knows the root alone, and so does the ledger."""
    ledger = mount.runtime / mount.name / "ledger"
    drop = Path("/proc/sys/vm/drop_caches")

    def forgotten() -> bool:
        drop.write_text("2")
        with Reader(str(ledger)) as reader:
            header = reader.header()
        return (header.known, header.lookups, header.open_handles) == (1, 1, 0)

    try:
        wait_until(forgotten, 20, "only the root is known")
    except AssertionError as error:
        with Reader(str(ledger)) as reader:
            error.add_note(f"still there: {reader.header()} {list(reader.inodes())[:20]}")
        raise


def options(kind: str, source: Path) -> tuple[str, dict[str, Any]]:
    """The type and options of a kind of mount."""
    type_name, keys = KINDS[kind]
    source.mkdir(parents=True, exist_ok=True)
    return type_name, {key: value.format(source=source) for key, value in keys.items()}


def run(kind: str, seed: int, enough: Callable[[int, float], bool], below: str = "") -> Report:
    """Storm a new mount of that kind, in a place of its own, then check its lookup counts.
    `below`: the type of file system, one that `native` makes, to have its source on."""
    with tempfile.TemporaryDirectory(prefix="fused-storm-", dir="/var/tmp") as place:
        os.chmod(place, 0o755)
        source = Path(place) / "source"
        type_name, keys = options(kind, source)
        on = native.mounted(below, source) if below else nullcontext()
        where = Path(place) / "mount"
        with on, Mount(where, type_name, python_path=(TESTS,), **keys) as mount:
            report = storm(mount, seed, enough)
            only_the_root_is_known(mount)
    return report


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="fault.storm", description="Kill workers under load.")
    parser.add_argument("seconds", type=float, nargs="?", default=60.0, help="for each kind")
    parser.add_argument("seed", type=int, nargs="?", default=int(time.time()), help="to replay")
    parser.add_argument("--kind", choices=KINDS, action="append", help="this kind of mount only")
    types = ("tmpfs", *native.KINDS)
    parser.add_argument("--source", choices=types, default="", help="of passthrough, on a new one")
    given = parser.parse_args()
    print(f"seed {given.seed}\n{'':24}{'kills':>8}{'calls':>10}  stall p50 / p99 / max")
    for kind in given.kind or KINDS:
        report = run(kind, given.seed, lambda _, past: past > given.seconds, given.source)
        stalls = " / ".join(f"{report.stall(q) * 1000:.0f} ms" for q in (0.5, 0.99, 1.0))
        print(f"{kind:24}{report.kills:8}{report.calls:10}  {stalls}", flush=True)


if __name__ == "__main__":
    main()
