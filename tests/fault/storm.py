"""Kill the worker of a mount again and again while clients work on it, and compare.

`python -m fault.storm SECONDS [SEED]` (with tests/ on the path; `make fault SECONDS=…`) storms each
kind of mount in turn for so long and prints a table; a failure names the seed that replays it.
"""

import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from forked import _Child
from supervised import Mount, wait_until

from fault.world import World
from fused.ledger.reader import Reader

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "memory": ("memory", {"size": "256MiB"}),
    "passthrough, shared": ("passthrough", {"source": "{source}", "cache": "shared"}),
    "passthrough, exclusive": ("passthrough", {"source": "{source}", "cache": "exclusive"}),
}
ANNOUNCED = ("the mount was resumed",)
CLIENTS = 4
SIGNALS = [signal.SIGKILL] * 8 + [signal.SIGSEGV, signal.SIGUSR2]


class Report(NamedTuple):
    """What a storm saw.  Stalls are in seconds: from a kill to the end of the longest call that was
    under way; a kill that delayed no call by 5 ms is not among them."""

    kills: int
    calls: int
    stalls: list[float]

    def stall(self, fraction: float) -> float:
        """The stall that so many of the kills stayed below."""
        ordered = sorted(self.stalls) or [0.0]
        return ordered[min(len(ordered) - 1, int(fraction * len(ordered)))]


def clients(root: str, seed: int, stop: str) -> tuple[int, list[tuple[float, float]]]:
    """Work until the file `stop` is there; calls made, and the slow ones.  Runs in a child."""
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
    chance = random.Random(seed)
    mount.announce(*ANNOUNCED, "Fatal Python error: Segmentation fault")
    stop = mount.directory / "stop"
    stop.unlink(missing_ok=True)
    child = _Child(clients, (str(mount.path), seed, str(stop)), leader=True)
    killed: list[float] = []
    began = time.monotonic()
    try:
        while not enough(len(killed), time.monotonic() - began):
            time.sleep(chance.choice([0.0, 0.01, 0.05, 0.2]) * chance.random())
            killed.append(time.monotonic())
            mount.kill(chance.choice(SIGNALS))
            mount.start()
        stop.touch()
        calls, slow = child.outcome(60, mount.abort)
    except BaseException as error:
        stop.touch()
        mount.abort()
        log = mount.log.read_text(errors="replace")[-3000:]
        import shutil; shutil.copy(mount.log, "/tmp/storm.log")
        error.add_note(f"seed {seed}, {len(killed)} kills; the log ends:\n{log}")
        raise
    stalls = []
    for moment in killed:
        ends = [end for start, end in slow if start <= moment + 0.2 and end > moment]
        if ends:
            stalls.append(max(ends) - moment)
    return Report(len(killed), calls, stalls)


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


def main() -> None:
    """The command line."""
    import tempfile

    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else int(time.time())
    print(f"seed {seed}\n{'':24}{'kills':>8}{'calls':>10}  stall p50 / p99 / max")
    for kind in KINDS:
        if len(sys.argv)>3 and sys.argv[3] not in kind: continue
        with tempfile.TemporaryDirectory(prefix="fused-storm-", dir="/var/tmp") as place:
            os.chmod(place, 0o755)
            type_name, keys = options(kind, Path(place) / "source")
            with Mount(Path(place) / "mount", type_name, **keys) as mount:
                report = storm(mount, seed, lambda _, past: past > seconds)
                only_the_root_is_known(mount)
        stalls = " / ".join(f"{report.stall(q) * 1000:.0f} ms" for q in (0.5, 0.99, 1.0))
        print(f"{kind:24}{report.kills:8}{report.calls:10}  {stalls}", flush=True)


if __name__ == "__main__":
    main()

