"""File systems that are not ours: llfuse's own examples, and classes that misbehave."""

import errno
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from misbehaving import KINDS, RETURNED
from supervised import Mount, Mounted, wait_until

from fused.ledger.reader import Header, Reader

LLFUSE = "llfuse==1.5.2"


@pytest.fixture(scope="session")
def examples(place: Path) -> Path:
    """The directory `examples` of llfuse's source package, fetched from the package index."""
    directory = place / "llfuse"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet"]
    pip += ["--no-deps", "--no-binary", ":all:", LLFUSE]
    fetched = subprocess.run([*pip, "--dest", directory], capture_output=True, text=True)
    if fetched.returncode:
        pytest.fail(f"cannot fetch {LLFUSE}: {fetched.stderr.strip()[-200:]}")
    package = next(directory.glob("llfuse-*.tar.gz"))
    subprocess.run(["tar", "-xf", package, "-C", directory], check=True)
    return next(directory.glob("llfuse-*/examples"))


def _header(mount: Mount) -> Header:
    with Reader(str(mount.runtime / mount.name / "ledger")) as reader:
        return reader.header()


def _work(root: Path) -> None:
    """What both examples can do."""
    (root / "directory").mkdir()
    for number in range(20):
        with open(root / "directory" / f"file{number}", "xb") as file:
            file.write(b"content %d" % number)
    os.rename(root / "directory" / "file0", root / "directory" / "renamed")
    os.symlink("file1", root / "directory" / "link")
    os.link(root / "directory" / "file2", root / "directory" / "linked")
    assert (root / "directory" / "link").read_bytes() == b"content 1"
    assert (root / "directory" / "linked").stat().st_nlink == 2
    assert (root / "directory" / "renamed").read_bytes() == b"content 0"
    assert len(os.listdir(root / "directory")) == 22
    os.chmod(root / "directory" / "file3", 0o600)
    assert stat.S_IMODE((root / "directory" / "file3").stat().st_mode) == 0o600
    try:
        os.stat(root / "missing")
    except FileNotFoundError:
        return
    raise AssertionError("a missing file is there")


def _remove(root: Path) -> None:
    for name in os.listdir(root / "directory"):
        os.unlink(root / "directory" / name)
    os.rmdir(root / "directory")
    assert os.listdir(root) == []


def _runs_and_is_counted(mount: Mount) -> None:
    assert _header(mount).known == 1
    mount.does(_work, mount.path)
    header = _header(mount)
    assert header.state == "serving"
    assert header.known == 23  # the root, the directory, 20 files, the symlink
    assert header.lookups >= 23
    assert header.requests > 100
    mount.does(_remove, mount.path)
    wait_until(lambda: _header(mount).known == 1, 5, "everything to be forgotten")
    wait_until(lambda: _header(mount).open_handles == 0, 5, "everything to be released")


def test_the_tmpfs_example_of_llfuse_runs_and_is_counted(mounted: Mounted, examples: Path) -> None:
    _runs_and_is_counted(mounted("tmpfs:Operations", python_path=(examples,)))


def test_the_passthrough_example_of_llfuse_runs_and_is_counted(
    mounted: Mounted, examples: Path, tmp_path: Path
) -> None:
    mount = mounted("passthroughfs:Operations", python_path=(examples,), source=str(tmp_path))
    _runs_and_is_counted(mount)
    assert os.listdir(tmp_path) == []


def _opened(path: Path, call: Callable[[int], object], flags: int = os.O_RDWR) -> None:
    fd = os.open(path, flags)
    try:
        call(fd)
    finally:
        with suppress(OSError):
            os.close(fd)


def _calls(root: Path, kind: str) -> dict[str, Callable[[], object]]:
    file, opened, directory, listed = (
        root / f"{what}-{kind}" for what in ("file", "open", "directory", "list")
    )
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY
    return {
        "lookup": lambda: os.stat(root / f"lookup-{kind}"),
        "chmod": lambda: os.chmod(file, 0o600),
        "truncate": lambda: os.truncate(file, 0),
        "utime": lambda: os.utime(file),
        "open": lambda: os.open(file, os.O_RDONLY),
        "getxattr": lambda: os.getxattr(file, "user.x"),
        "listxattr": lambda: os.listxattr(file),
        "setxattr": lambda: os.setxattr(file, "user.x", b"1"),
        "removexattr": lambda: os.removexattr(file, "user.x"),
        "read": lambda: _opened(opened, lambda fd: os.read(fd, 10)),
        "write": lambda: _opened(opened, lambda fd: os.write(fd, b"1")),
        "fsync": lambda: _opened(opened, os.fsync),
        "opendir": lambda: os.listdir(directory),
        "readdir": lambda: os.listdir(listed),
        "fsyncdir": lambda: _opened(listed, os.fsync, os.O_RDONLY),
        "create": lambda: os.close(os.open(directory / "new", flags)),
        "mkdir": lambda: os.mkdir(directory / "new"),
        "mkfifo": lambda: os.mkfifo(directory / "new"),
        "symlink": lambda: os.symlink("target", directory / "new"),
        "link": lambda: os.link(file, directory / "new"),
        "rename": lambda: os.rename(file, directory / "new"),
    }


# Whose result llfuse does not look at: a wrong one does no harm, and says success.
WITHOUT_RESULT = {"setxattr", "removexattr", "fsync", "fsyncdir", "rename"}


def _misbehave(root: Path, kind: str) -> list[str]:
    """What each call says, and that the mount goes on after it."""
    wrong = []
    for name, call in _calls(root, kind).items():
        try:
            call()
        except OSError as error:
            if error.errno != (errno.ENOSPC if kind == "os" else errno.EIO):
                wrong.append(f"{name}: {errno.errorcode.get(error.errno or 0, error.errno)}")
        else:
            if kind not in RETURNED or name not in WITHOUT_RESULT:
                wrong.append(f"{name}: no error")
        os.stat(root)
        os.listdir(root)
    return wrong


def test_a_class_that_misbehaves_gives_errors_and_the_mount_goes_on(
    mounted: Mounted,
) -> None:
    mount = mounted("misbehaving:Misbehaving", python_path=(Path(__file__).parent,))
    mount.announce("unexpected exception", "^Traceback")
    pid = mount.pid
    wrong = {kind: mount.does(_misbehave, mount.path, kind) for kind in KINDS}
    assert not any(wrong.values()), {kind: found for kind, found in wrong.items() if found}
    assert (mount.pid, mount.alive()) == (pid, True)
    assert _header(mount).state == "serving"
    assert _header(mount).errors > 100
    logged = mount.log.read_text().count("Traceback")
    for kind in KINDS:
        mount.does(_misbehave, mount.path, kind)
    assert mount.log.read_text().count("Traceback") == logged > 100
