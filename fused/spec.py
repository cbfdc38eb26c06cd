"""What a worker has to know of its mount, in a form that is read without YAML or pydantic.

The configuration is parsed and validated once (fused.config); what came out for one mount is a
MountSpec, saved as `RUNTIME_DIR/NAME/spec.json` together with a stamp of the files that it came
from.  A successor worker that finds the stamp unchanged reads only this.
"""

import json
import os
from typing import Any, NamedTuple

Stamp = list[list[Any]]  # [path, mtime_ns, size, inode] for each file; [path, 0, 0, 0] if missing


class MountSpec(NamedTuple):
    """One mount of the configuration, validated.  Times are in seconds."""

    name: str
    type: str
    mountpoint: str
    autostart: bool = True
    read_only: bool = False
    allow_other: bool = True
    mount_options: tuple[str, ...] = ()
    threads: int | None = None
    log_level: str = "info"
    stop_timeout: float = 10.0
    watchdog: float = 30.0
    on_crash: str = "resume"
    options: dict[str, Any] = {}  # noqa: RUF012 (a NamedTuple field, never changed)

    @classmethod
    def from_json(cls, text: str) -> "MountSpec":
        """The spec written by `to_json`; ValueError or TypeError for anything else."""
        values = json.loads(text)
        values["mount_options"] = tuple(values["mount_options"])
        return cls(**values)

    def to_json(self) -> str:
        """One JSON object with a member for each field."""
        return json.dumps(self._asdict(), ensure_ascii=True)


def stamp(paths: list[str]) -> Stamp:
    """What stat(2) says now of the files that a configuration came from."""
    result: Stamp = []
    for path in paths:
        try:
            st = os.stat(path)
            result.append([path, st.st_mtime_ns, st.st_size, st.st_ino])
        except OSError:
            result.append([path, 0, 0, 0])
    return result


def save(directory: str, spec: MountSpec, stamped: Stamp) -> None:
    """Write `directory`/spec.json in one step (rename), creating the directory (mode 0755)."""
    os.makedirs(directory, mode=0o755, exist_ok=True)
    temporary = os.path.join(directory, f"spec.json.{os.getpid()}")
    with open(temporary, "w", encoding="ascii") as file:
        file.write(json.dumps(stamped) + "\n" + spec.to_json() + "\n")
    os.chmod(temporary, 0o600)
    os.rename(temporary, os.path.join(directory, "spec.json"))


def load(directory: str) -> tuple[MountSpec, Stamp] | None:
    """The spec saved in `directory` and its stamp, or None when there is none that can be read."""
    try:
        with open(os.path.join(directory, "spec.json"), encoding="ascii") as file:
            first, second = file.read().splitlines()
        return MountSpec.from_json(second), json.loads(first)
    except (OSError, ValueError, TypeError, KeyError):
        return None
