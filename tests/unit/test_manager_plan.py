"""What a reload has to do."""

from typing import Any

import pytest

from fused.manager.plan import Plan, difference
from fused.spec import MountSpec

MIRROR = MountSpec("m", "passthrough", "/m", options={"source": "/s", "cache": "shared"})
SCRATCH = MountSpec("m", "memory", "/m", options={"size": 1, "inodes": None})
KEPT = MountSpec("m", "memory", "/m", options={"size": 1, "inodes": None, "persist": "/p"})


def plan(**lists: list[str]) -> Plan:
    return Plan(**{field: lists.get(field, []) for field in Plan._fields})


def test_new_and_gone_mounts() -> None:
    other = MIRROR._replace(name="o")
    assert difference({"m": MIRROR}, {"o": other}) == plan(start=["o"], stop=["m"])


@pytest.mark.parametrize(
    ("old", "change", "expected"),
    [
        (MIRROR, {}, "same"),
        (MIRROR, {"autostart": False}, "same"),
        (MIRROR, {"threads": 3}, "restart"),
        (MIRROR, {"log_level": "debug", "watchdog": 1.0, "stop_timeout": 2.0}, "restart"),
        (MIRROR, {"on_crash": "remount", "autostart": False}, "restart"),
        (MIRROR, {"mountpoint": "/n"}, "remount"),
        (MIRROR, {"read_only": True, "threads": 3}, "remount"),
        (MIRROR, {"allow_other": False}, "remount"),
        (MIRROR, {"mount_options": ("noexec",)}, "remount"),
        (MIRROR, {"options": {"source": "/t", "cache": "shared"}}, "remount"),
        (MIRROR, {"options": {"source": "/s", "cache": "exclusive"}}, "remount"),
        (MIRROR, {"type": "a:B", "options": {}}, "remount"),
        (SCRATCH, {"options": {"size": 2, "inodes": 5}}, "restart"),
        (SCRATCH, {"options": {"size": 2, "inodes": None}, "read_only": True}, "remount"),
        (SCRATCH, {"options": {"size": 1, "inodes": None, "persist": "/p"}}, "remount"),
        (KEPT, {"options": {"size": 2, "inodes": None, "persist": "/p"}}, "remount"),
    ],
)
def test_a_changed_mount(old: MountSpec, change: dict[str, Any], expected: str) -> None:
    found = difference({"m": old}, {"m": old._replace(**change)})
    assert found == plan(**{expected: ["m"]})


def test_options_of_other_peoples_types_never_change_in_place() -> None:
    old = MountSpec("m", "a:B", "/m", options={"x": 1})
    assert difference({"m": old}, {"m": old._replace(options={"x": 2})}).remount == ["m"]
