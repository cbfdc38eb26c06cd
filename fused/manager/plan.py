"""The difference of two configurations: what a reload has to do."""

from collections.abc import Mapping
from typing import NamedTuple

from fused.filesystems.options import BUILT_IN
from fused.spec import MountSpec

# What a successor may be told differently on the same mount; of `options` what the type allows.
CHANGEABLE = frozenset({"threads", "log_level", "stop_timeout", "watchdog", "on_crash"})
UNFELT = frozenset({"autostart"})  # no worker knows it


class Plan(NamedTuple):
    """Names of mounts, each in one list."""

    start: list[str]
    stop: list[str]
    restart: list[str]  # in place: a successor takes over
    remount: list[str]
    same: list[str]


def difference(old: Mapping[str, MountSpec], new: Mapping[str, MountSpec]) -> Plan:
    """What leads from `old` to `new`."""
    plan = Plan([], [name for name in old if name not in new], [], [], [])
    for name, spec in new.items():
        if name not in old:
            plan.start.append(name)
        elif not (fields := _fields(old[name], spec)) | (options := _options(old[name], spec)):
            plan.same.append(name)
        elif fields <= CHANGEABLE and options <= _changeable(spec):
            plan.restart.append(name)
        else:
            plan.remount.append(name)
    return plan


def _fields(old: MountSpec, new: MountSpec) -> set[str]:
    differ = {field for field in MountSpec._fields if getattr(old, field) != getattr(new, field)}
    return differ - UNFELT - {"options"}


def _options(old: MountSpec, new: MountSpec) -> set[str]:
    keys = old.options.keys() | new.options.keys()
    return {key for key in keys if old.options.get(key) != new.options.get(key)}


def _changeable(spec: MountSpec) -> frozenset[str]:
    model = BUILT_IN.get(spec.type)
    return model.changeable(spec.options) if model else frozenset()
