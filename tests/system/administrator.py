"""fused on the machine, as its administrator describes, asks and steers it."""

import json
from typing import Any

from system.machine import Machine, wait_until

CONFIG = """\
defaults:
  stop_timeout: 2s
mounts:
  hello:
    type: static
    mountpoint: /mnt/hello
    files: {message: "hello world\\n"}
  scratch:
    type: memory
    mountpoint: /mnt/scratch
    size: 64MiB
  mirror:  # of a tmpfs: there are file handles
    type: passthrough
    mountpoint: /mnt/mirror
    source: /run/source
  plain:  # of an overlay: there are none
    type: passthrough
    mountpoint: /mnt/plain
    source: /srv/plain
  later:
    type: static
    mountpoint: /mnt/later
    autostart: false
    files: {message: "at last\\n"}
"""
MOUNTS = ("hello", "scratch", "mirror", "plain")
SOURCES = """\
d /run/source 0755 root root -
d /srv/plain 0755 root root -
"""


class Fused:
    """fused on the machine, as an administrator sees it."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    def ctl(self, *argv: str, check: bool = True, timeout: float = 60) -> tuple[int, str]:
        """fusedctl's exit status and all that it printed."""
        done = self.machine.run("fusedctl", *argv, check=check, timeout=timeout)
        return done.returncode, done.stdout + done.stderr

    def status(self, name: str) -> dict[str, Any]:
        """One mount, as `status --json` has it."""
        done = self.machine.run("fusedctl", "--json", "status", name)
        mounts: list[dict[str, Any]] = json.loads(done.stdout)["mounts"]
        return next(mount for mount in mounts if mount["name"] == name)

    def pid(self, name: str) -> int:
        """What systemd says is the worker's pid, 0 for none."""
        return int(self.machine.show(f"fused@{name}.service", "MainPID"))

    def pids(self) -> dict[str, int]:
        """The workers of MOUNTS."""
        return {name: self.pid(name) for name in MOUNTS}

    def state(self, name: str) -> str:
        """What systemd says of a mount's unit: active, failed, inactive …"""
        return self.machine.show(f"fused@{name}.service", "ActiveState")

    def mounted(self) -> set[str]:
        """Mountpoints of all that fused has mounted, from mountinfo."""
        lines = self.machine.output("cat", "/proc/1/mountinfo").splitlines()
        return {line.split()[4] for line in lines if " - fuse" in line and "fusectl" not in line}

    def configure(self, text: str) -> None:
        """Write the config, without telling anybody."""
        self.machine.write("/etc/fused.yaml", text)

    def wait_until_serving(self, *names: str) -> None:
        """Return when all these serve."""
        wait_until(
            lambda: all(self.status(name)["state"] == "serving" for name in names),
            30,
            f"{', '.join(names)} to serve",
        )
