"""Programs: execve(2)."""

import errno
import os
import shutil
import subprocess
from pathlib import Path

from .assertions import ALICE, BOB, fails, make, opened, touch


def _program(root: Path, name: str = "sleep") -> Path:
    path = root / name
    shutil.copy(shutil.which(name) or f"/usr/bin/{name}", path)
    os.chmod(path, 0o755)
    return path


def a_program_runs(root: Path) -> None:
    path = _program(root, "echo")
    assert subprocess.check_output([path, "hello"]) == b"hello\n"
    make(root / "script", b"#!/bin/sh\necho script $1\n", 0o755)
    assert subprocess.check_output([root / "script", "x"]) == b"script x\n"
    make(root / "other", b"#!" + os.fsencode(path) + b" interpreted\n", 0o755)
    assert subprocess.check_output([root / "other"]).startswith(b"interpreted")


def what_is_not_executable_does_not_run(root: Path) -> None:
    path = _program(root, "true")
    os.chmod(path, 0o644)
    os.mkdir(root / "directory")
    for target in (path, root / "directory"):
        with fails(errno.EACCES):
            subprocess.run([target], check=True)
    os.chmod(path, 0o700)
    subprocess.run([path], check=True)
    ALICE.fails(errno.EACCES, lambda: subprocess.run([path], check=True))


def a_program_need_not_be_readable(root: Path) -> None:
    path = _program(root, "true")
    os.chmod(path, 0o711)
    ALICE.does(lambda: subprocess.run([path], check=True))
    assert not ALICE.may(path.read_bytes)


def a_running_program_cannot_be_written(root: Path) -> None:
    path = _program(root)
    process = subprocess.Popen([path, "60"])
    try:
        for flags in (os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_TRUNC):
            with fails(errno.ETXTBSY):
                touch(path, flags)
        with fails(errno.ETXTBSY):
            os.truncate(path, 0)
        os.unlink(path)
    finally:
        process.kill()
        process.wait()


def a_file_open_for_writing_cannot_run(root: Path) -> None:
    path = _program(root, "true")
    with opened(path, os.O_WRONLY), fails(errno.ETXTBSY):
        subprocess.run([path], check=True)
    subprocess.run([path], check=True)


def a_running_program_may_be_replaced(root: Path) -> None:
    path = _program(root)
    process = subprocess.Popen([path, "60"])
    make(root / "new", b"#!/bin/sh\nexit 3\n", 0o755)
    os.rename(root / "new", path)
    assert subprocess.run([path], check=False).returncode == 3
    assert process.poll() is None
    process.kill()
    process.wait()


def a_setuid_program_runs_as_its_owner(root: Path) -> None:
    if os.statvfs(root).f_flag & os.ST_NOSUID:
        return
    path = _program(root, "id")
    os.chown(path, BOB.uid, BOB.gid)
    os.chmod(path, 0o6755)
    assert ALICE.does(lambda: subprocess.check_output([path, "-u"])) == b"%d\n" % BOB.uid
    assert ALICE.does(lambda: subprocess.check_output([path, "-g"])) == b"%d\n" % BOB.gid
    assert ALICE.does(lambda: subprocess.check_output([path, "-ru"])) == b"%d\n" % ALICE.uid


def a_library_is_loaded(root: Path) -> None:
    library = next(Path("/usr/lib").glob("*/libz.so.1*"), None)
    if library is None:
        return
    shutil.copy(library, root / "library.so")
    import ctypes

    assert ctypes.CDLL(str(root / "library.so")).zlibCompileFlags() != 0


def a_compiled_program_runs_at_once(root: Path) -> None:
    """Written by one process, run by another, again and again."""
    for number in range(10):
        program = f"#!/bin/sh\nexit {number}\n"
        (root / "program").write_text(program)
        os.chmod(root / "program", 0o755)
        assert subprocess.run([root / "program"], check=False).returncode == number
