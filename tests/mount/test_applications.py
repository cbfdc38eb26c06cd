"""Programs that people run, on each of our file systems: they know nothing of fused."""

import os
import random
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from supervised import Mount

KINDS = ("memory", "passthrough-shared", "passthrough-exclusive")


@pytest.fixture(scope="module", params=KINDS)
def mount(request: pytest.FixtureRequest, place: Path, numbers: Iterator[int]) -> Iterator[Mount]:
    """One mount for all programs."""
    kind, _, cache = request.param.partition("-")
    directory = place / f"applications{next(numbers)}"
    options: dict[str, str] = {}
    if kind == "passthrough":
        source = place / f"{directory.name}-source"
        source.mkdir()
        options = {"source": str(source), "cache": cache}
    with Mount(directory, kind, **options) as served:
        yield served


@pytest.fixture
def root(mount: Mount, request: pytest.FixtureRequest) -> Path:
    """A fresh directory on the mount."""
    path = mount.path / request.node.name
    mount.does(path.mkdir)
    return path


def run(*command: object, cwd: Path | None = None, **environment: str) -> str:
    """What the command prints; AssertionError with everything it said when it fails."""
    result = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    assert result.returncode == 0, f"{command}: {result.stdout}"
    return result.stdout


def make_tree(root: Path) -> None:
    """A tree with some of everything that tar and rsync care for."""
    chance = random.Random(1)
    for number in range(150):
        directory = root / f"d{number % 12}" / f"e{number % 5}"
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / f"file{number}"
        path.write_bytes(chance.randbytes(chance.randrange(30_000)))
        path.chmod(chance.choice([0o600, 0o644, 0o755, 0o4711]))
        os.utime(path, ns=(10**18 + number, 10**18 + number * 1_000_001))
    os.link(root / "d0/e0/file0", root / "hard link")
    (root / "symlink").symlink_to("d0/e0/file0")
    (root / "dangling").symlink_to("nowhere")
    os.mkfifo(root / "fifo")
    os.setxattr(root / "d0/e0/file0", "user.note", b"\0\xff")
    run("setfacl", "-m", "u:1234:rw", root / "d1/e1/file1")
    run("setfacl", "-d", "-m", "g:1234:rx", root / "d1")
    with open(root / "sparse", "wb") as file:
        file.seek(1 << 30)
        file.write(b"end")
    os.chown(root / "d2", 1234, 1235)


def difference(one: Path, other: Path) -> str:
    """What rsync would still do to make the trees alike."""
    return run("rsync", "-aHAX", "--dry-run", "--itemize-changes", "--delete", f"{one}/", other)


@pytest.mark.parametrize("journal", ["wal", "delete"])
def test_sqlite(mount: Mount, root: Path, journal: str) -> None:
    path = root / f"{journal}.db"

    def insert(number: int) -> None:
        with sqlite3.connect(path, timeout=60, isolation_level=None) as connection:
            for i in range(60):
                connection.execute("begin immediate")
                connection.execute("insert into t values (?, ?)", (number, i))
                connection.execute("commit")

    def work() -> None:
        with sqlite3.connect(path) as connection:
            assert connection.execute(f"pragma journal_mode={journal}").fetchone() == (journal,)
            connection.execute("create table t (writer int, number int, unique (writer, number))")
        threads = [threading.Thread(target=insert, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with sqlite3.connect(path) as connection:
            assert connection.execute("select count(*) from t").fetchone() == (240,)
            assert connection.execute("pragma integrity_check").fetchone() == ("ok",)

    mount.does(work)


def test_git(mount: Mount, root: Path) -> None:
    identity = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    identity |= {f"GIT_{role}_{what}": "x" for role in ("AUTHOR", "COMMITTER")
                 for what in ("NAME", "EMAIL")}  # fmt: skip

    def work() -> None:
        origin, clone = root / "origin", root / "clone"
        run("git", "init", "-q", origin, **identity)
        for number in range(300):
            path = origin / f"d{number % 7}" / f"file{number}"
            path.parent.mkdir(exist_ok=True)
            path.write_text(f"{number}\n" * number)
        for message in ("one", "two"):
            (origin / "d0" / message).write_text(message)
            run("git", "add", "-A", cwd=origin, **identity)
            run("git", "commit", "-qm", message, cwd=origin, **identity)
        run("git", "clone", "-q", "--no-hardlinks", origin, clone, **identity)
        run("git", "gc", "-q", "--aggressive", "--prune=now", cwd=clone, **identity)
        run("git", "fsck", "--full", "--strict", cwd=clone, **identity)
        assert run("git", "status", "--porcelain", cwd=clone, **identity) == ""
        assert run("git", "log", "--format=%s", cwd=clone, **identity) == "two\none\n"

    mount.does(work)


def test_tar(mount: Mount, root: Path, tmp_path: Path) -> None:
    def work() -> None:
        original, packed, unpacked = tmp_path / "original", root / "tar", root / "unpacked"
        original.mkdir()
        unpacked.mkdir()
        make_tree(original)
        keep = ["--xattrs", "--xattrs-include=*", "--acls", "--sparse", "--format=posix"]
        run("tar", "-C", original, *keep, "-cf", packed, ".")
        run("tar", "-C", unpacked, *keep, "-xpf", packed)
        run("tar", "-C", unpacked, *keep, "--compare", "-f", packed)
        assert (unpacked / "sparse").stat().st_blocks < 100
        assert (unpacked / "hard link").stat().st_nlink == 2

    mount.does(work)


def test_rsync(mount: Mount, root: Path, tmp_path: Path) -> None:
    def work() -> None:
        (tmp_path / "original").mkdir()
        make_tree(tmp_path / "original")
        run("rsync", "-aHAXS", f"{tmp_path}/original/", root / "copy")
        assert difference(tmp_path / "original", root / "copy") == ""
        run("rsync", "-aHAXS", f"{root}/copy/", tmp_path / "back")
        assert difference(tmp_path / "original", tmp_path / "back") == ""

    mount.does(work)


def test_a_c_program_is_built_by_make(mount: Mount, root: Path) -> None:
    def work() -> None:
        names = [f"part{number}" for number in range(24)]
        for number, name in enumerate(names):
            (root / f"{name}.c").write_text(f"int {name}(void) {{ return {number}; }}\n")
        calls = " + ".join(f"{name}()" for name in names)
        declarations = "".join(f"int {name}(void);\n" for name in names)
        (root / "main.c").write_text(
            f'#include <stdio.h>\n{declarations}int main(void) {{ printf("%d\\n", {calls}); }}\n'
        )
        objects = " ".join(f"{name}.o" for name in [*names, "main"])
        (root / "Makefile").write_text(f"program: {objects}\n\tcc -o $@ {objects}\n")
        run("make", "-j4", "CC=cc", cwd=root)
        assert run(root / "program") == f"{sum(range(24))}\n"
        assert "up to date" in run("make", cwd=root)

    mount.does(work)


def test_pip_installs(mount: Mount, root: Path) -> None:
    def work() -> None:
        run(sys.executable, "-m", "pip", "-q", "install", "--no-deps", "--target", root, "click")
        script = "import click; print(click.__file__)"
        assert run(sys.executable, "-c", script, PYTHONPATH=str(root)).startswith(str(root))

    mount.does(work)


def test_random_writes_truncations_and_mappings(mount: Mount, root: Path) -> None:
    """As fsx does: one file, random operations, everything read is compared."""

    def work() -> None:
        chance, limit = random.Random(7), 300_000
        content = bytearray()
        fd = os.open(root / "file", os.O_CREAT | os.O_RDWR)
        for step in range(2500):
            at, size = chance.randrange(limit), chance.randrange(1, 40_000)
            action = chance.choice(["write", "write", "read", "truncate", "append", "map", "sync"])
            if action in ("write", "append"):
                at = len(content) if action == "append" else at
                data = chance.randbytes(size)
                assert os.pwrite(fd, data, at) == size
                content.extend(bytes(max(0, at - len(content))))
                content[at : at + size] = data
            elif action == "read":
                assert os.pread(fd, size, at) == content[at : at + size], step
            elif action == "truncate":
                os.ftruncate(fd, at)
                del content[at:]
                content.extend(bytes(at - len(content)))
            elif action == "sync":
                os.fsync(fd)
            elif content:
                _change_through_mapping(fd, content, chance)
        os.close(fd)
        assert (root / "file").read_bytes() == content

    mount.does(work)


def _change_through_mapping(fd: int, content: bytearray, chance: random.Random) -> None:
    import mmap

    with mmap.mmap(fd, len(content)) as mapping:
        at = chance.randrange(len(content))
        piece = chance.randbytes(min(5000, len(content) - at))
        mapping[at : at + len(piece)] = piece
        content[at : at + len(piece)] = piece
        assert mapping[:] == content
