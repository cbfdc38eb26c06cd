"""Workers are killed at random moments; clients that know every answer see none that differs."""

import time

import pytest

from fault.storm import KINDS, run

KILLS = 21  # with five kinds and two seeds, over 200 in all
LIMIT = 12.0  # seconds, on a machine that is too busy for so many


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", [1, int(time.time())], ids=["replayed", "new"])
def test_a_storm_of_kills_changes_nothing(kind: str, seed: int) -> None:
    report = run(kind, seed, lambda kills, seconds: kills >= KILLS or seconds > LIMIT)
    assert report.kills > 10
    assert report.calls > 1000
