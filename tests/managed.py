"""A manager with real workers under the local launcher, as `make run` has it."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from supervised import REPOSITORY, leftovers, wait_until

from fused import mountinfo
from fused.control import socket_path
from fused.control.client import Client
from fused.errors import NoManager

PYTHONPATH = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests")])


class Managed:
    """A manager whose files are all in `directory`.  A context manager: leaving it sends SIGTERM,
    after which the manager must end with 0 and no mount may be left, whatever happened in it."""

    def __init__(self, directory: Path, **mounts: dict[str, Any]) -> None:
        self.directory = directory
        self.runtime_dir = directory / "run"
        self.config = directory / "fused.yaml"
        self.output = directory / "output"
        directory.mkdir(exist_ok=True)
        self.write(**mounts)
        self._process: subprocess.Popen[bytes] | None = None

    def at(self, name: str) -> Path:
        """Where the mount `name` is."""
        return self.directory / "mnt" / name

    def write(self, **mounts: dict[str, Any]) -> None:
        """Make these the configured mounts; each has its mountpoint and stops soon."""
        usual = {name: {"mountpoint": str(self.at(name)), "stop_timeout": "1s"} for name in mounts}
        config = {"mounts": {name: usual[name] | keys for name, keys in mounts.items()}}
        self.config.write_text(json.dumps(config))

    def __enter__(self) -> "Managed":
        self.start()
        return self

    def start(self) -> None:
        """Start the manager and wait until all mounts serve or have failed."""
        with open(self.output, "wb") as output:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "fused", "--launcher", "local"),
                    *("--config", self.config, "--runtime-dir", self.runtime_dir),
                ],
                stdout=output,
                stderr=subprocess.STDOUT,
                env=os.environ | {"PYTHONPATH": PYTHONPATH},
            )
        wait_until(lambda: " ready" in self.printed() or not self.running(), 30, "it is ready")
        assert self.running(), self.printed()

    def running(self) -> bool:
        """Whether the manager lives."""
        return self._process is not None and self._process.poll() is None

    def printed(self) -> str:
        """All that the manager printed and logged since it was started."""
        return self.output.read_text()

    def kill(self, number: signal.Signals = signal.SIGKILL) -> int:
        """Send a signal that ends the manager; its exit status."""
        assert self._process is not None
        self._process.send_signal(number)
        return self._process.wait(60)

    def send(self, number: signal.Signals) -> None:
        """Send a signal that does not end it."""
        assert self._process is not None
        self._process.send_signal(number)

    def __exit__(self, *error: object) -> None:
        try:
            if self.running():
                assert self.kill(signal.SIGTERM) == 0, self.printed()
            if error[0] is None:
                assert not leftovers(self.directory)
                assert "Traceback" not in self.printed(), self.printed()
        finally:
            if self.running():
                self.kill()
            for mount in mountinfo.mounts():
                if mount.mountpoint.startswith(str(self.directory)):
                    mountinfo.abort(mount.minor)
                    with contextlib.suppress(OSError):
                        mountinfo.detach(mount.mountpoint)

    def ctl(self, *arguments: str, status: int = 0) -> subprocess.CompletedProcess[str]:
        """Run fusedctl, which must exit with `status`."""
        done = subprocess.run(
            [sys.executable, "-m", "fused.cli", "--runtime-dir", self.runtime_dir, *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            env=os.environ | {"PYTHONPATH": PYTHONPATH},
        )
        assert done.returncode == status, (arguments, done.stdout, done.stderr, self.printed())
        return done

    def json(self, *arguments: str) -> Any:
        """What `fusedctl --json` prints."""
        return json.loads(self.ctl("--json", *arguments).stdout)

    def status(self, name: str) -> dict[str, Any]:
        """The status of one mount."""
        (found,) = self.json("status", name)["mounts"]
        assert isinstance(found, dict)
        return found

    def client(self) -> Client:
        """A connection to the manager."""
        return Client(socket_path(str(self.runtime_dir)))

    def state(self, name: str) -> str:
        """The state of a mount, asked for cheaply; "unreachable" without a manager."""
        with contextlib.suppress(NoManager), self.client() as client:
            return str(client.call("Status", names=[name])["mounts"][0].state)
        return "unreachable"

    def reaches(self, name: str, state: str, limit: float = 30) -> None:
        """Wait until a mount is in `state`."""
        wait_until(lambda: self.state(name) == state, limit, f"{name} is {state}")
