"""Client processes that do one row's work at the same time, and how fast they were together."""

import gc
import os
from collections.abc import Callable, Iterator
from time import monotonic_ns

from forked import _Child

Work = Iterator[int]
"""What a client does: up to the first value it prepares, then each value is so many units done."""

LIMIT = 120.0  # seconds, after which a client is killed: its mount hangs


def rate(
    work: Callable[[int], Work],
    number: int,
    seconds: float,
    ready: Callable[[], None],
    rescue: Callable[[], None],
) -> float:
    """Units per second of `number` clients, of which client i does `work(i)` for so long at most.

    `ready` is called when all are prepared and wait; `rescue` has to end what hangs.  Raises what
    a client raises."""
    told, tell = os.pipe()
    gate, open_gate = os.pipe()
    children = []
    try:
        for i in range(number):
            arguments = (work, i, seconds, tell, gate, open_gate)
            children.append(_Child(_client, arguments, leader=True))
        os.close(tell)
        tell = -1
        if _all_prepared(told, number):
            ready()
        os.close(open_gate)
        open_gate = -1
        outcomes = [child.outcome(LIMIT, rescue) for child in children]
    finally:
        for fd in (told, tell, gate, open_gate):
            if fd >= 0:
                os.close(fd)
    began, ended = min(o[1] for o in outcomes), max(o[2] for o in outcomes)
    return float(sum(o[0] for o in outcomes) / (ended - began) * 1e9)


def _all_prepared(told: int, number: int) -> bool:
    """Wait until each client has told or ended."""
    count = 0
    while piece := os.read(told, number):
        count += len(piece)
        if count == number:
            return True
    return False


def _client(
    work: Callable[[int], Work], i: int, seconds: float, tell: int, gate: int, open_gate: int
) -> tuple[int, int, int]:
    os.close(open_gate)
    gc.disable()
    steps = work(i)
    next(steps)
    os.write(tell, b"!")
    os.close(tell)
    os.read(gate, 1)  # ends when the gate's other end is closed
    done, began = 0, monotonic_ns()
    deadline = began + int(seconds * 1e9)
    for units in steps:
        done += units
        if monotonic_ns() > deadline:
            break
    steps.close()  # type: ignore[attr-defined]
    return done, began, monotonic_ns()
