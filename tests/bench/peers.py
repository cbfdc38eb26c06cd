"""File systems to compare with, fetched from where they are published; none of them is ours."""

import subprocess
import sys
from pathlib import Path

VERSIONS = {"llfuse": "1.5.2", "pyfuse3": "3.5.0"}


class Peers:
    """The examples of llfuse and pyfuse3, in `directory`, with an environment to run them in."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.python = directory / "venv/bin/python"

    def fetch(self) -> None:
        """Fetch and build whatever is missing.  CalledProcessError."""
        if not (self.directory / "ready").exists():
            self.directory.mkdir(parents=True, exist_ok=True)
            wanted = [f"{name}=={version}" for name, version in VERSIONS.items()]
            _run(sys.executable, "-m", "venv", "--clear", self.directory / "venv")
            pip = [self.python, "-m", "pip", "-qq", "--disable-pip-version-check"]
            _run(*pip, "install", *wanted)
            sources = ["--no-deps", "--no-binary", ",".join(VERSIONS), "--dest", self.directory]
            _run(*pip, "download", *sources, *wanted)
            for name, version in VERSIONS.items():
                archive = self.directory / f"{name}-{version}.tar.gz"
                _run("tar", "-xf", archive, "-C", self.directory)
            (self.directory / "ready").touch()

    def example(self, library: str, name: str) -> list[str]:
        """The command that runs an example; mount arguments follow."""
        script = self.directory / f"{library}-{VERSIONS[library]}" / "examples" / f"{name}.py"
        return [str(self.python), str(script)]


def _run(*command: str | Path) -> None:
    subprocess.run(command, check=True)
