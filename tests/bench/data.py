"""Files to read, made before the clock starts."""

import os
import subprocess
import sysconfig
import tarfile
from pathlib import Path
from typing import NamedTuple

MIB = 1 << 20
FILES = 4  # one for each client
_GIT = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"} | {
    f"GIT_{who}_{what}": "bench" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
}


class Sizes(NamedTuple):
    """How much there is: bytes that are written, bytes of each file that is read, names in the
    small files' directory and in the large one."""

    written: int = 256 * MIB
    file: int = 64 * MIB
    small: int = 10_000
    names: int = 100_000

    def over(self, by: int) -> "Sizes":
        """Less of everything."""
        return Sizes(*(size // by for size in self))


class Data(NamedTuple):
    """What a contender shows under `root`, or once it is filled, will."""

    root: Path
    sizes: Sizes
    project: Path  # where the archive and the repository are, natively

    @property
    def files(self) -> list[str]:
        return [f"{self.root}/file{i}" for i in range(FILES)]

    @property
    def small_directory(self) -> str:
        return f"{self.root}/small"

    @property
    def small(self) -> list[str]:
        return [f"{self.small_directory}/file{i}" for i in range(self.sizes.small)]

    @property
    def names(self) -> str:
        return f"{self.root}/names"

    @property
    def archive(self) -> Path:
        return self.project / "project.tar"

    @property
    def repository(self) -> Path:
        return self.project / "project"

    def fill(self) -> None:
        """Make the files."""
        content = os.urandom(MIB)
        for path in self.files:
            with open(path, "wb", buffering=0) as file:
                for start in range(0, self.sizes.file, MIB):
                    file.write(content[: self.sizes.file - start])
                os.fsync(file.fileno())
        os.mkdir(self.small_directory)
        for path in self.small:
            Path(path).write_bytes(content[:4096])
        os.mkdir(self.names)
        for i in range(self.sizes.names):
            os.mknod(f"{self.names}/a-name-of-usual-length-{i}")

    def warm(self, part: str) -> None:
        """Have the "files", the "small" ones or the "names" in the kernel's caches."""
        if part == "names":
            os.listdir(self.names)
        else:
            for path in self.files if part == "files" else self.small:
                Path(path).read_bytes()


def make_project(directory: Path, files: int) -> None:
    """Python's own library as an archive and as a git repository."""
    library = Path(sysconfig.get_path("stdlib"))
    sources = sorted(p for p in library.rglob("*.py") if "site-packages" not in p.parts)[:files]
    with tarfile.open(directory / "project.tar", "w") as archive:
        for path in sources:
            archive.add(path, path.relative_to(library))
    repository = directory / "project"
    repository.mkdir()
    subprocess.run(["tar", "-xf", directory / "project.tar", "-C", repository], check=True)
    git = ["git", "-C", str(repository)]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "all"]):
        subprocess.run([*git, *command], check=True, env=os.environ | _GIT)
