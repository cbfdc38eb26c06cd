"""Directories: mkdir(2), rmdir(2), their link counts, and work relative to them."""

import errno
import os
import shutil
from pathlib import Path

from .assertions import KINDS, fails, make, make_directory, opened, stamps


def a_new_directory_is_empty(root: Path) -> None:
    os.mkdir(root / "directory")
    st = os.stat(root / "directory")
    assert st.st_nlink == 2
    assert os.listdir(root / "directory") == []
    with fails(errno.ENOENT):
        os.stat(root / "directory" / "anything")


def subdirectories_count_as_links(root: Path) -> None:
    for number in range(10):
        assert os.stat(root).st_nlink == 2 + number
        os.mkdir(root / str(number))
        make(root / f"file{number}")
        os.symlink("0", root / f"link{number}")
    for number in range(10):
        os.rmdir(root / str(number))
        assert os.stat(root).st_nlink == 2 + 9 - number


def rmdir_is_for_empty_directories_only(root: Path) -> None:
    for kind, maker in KINDS.items():
        maker(root / kind)
        if kind != "directory":
            with fails(errno.ENOTDIR, about=kind), stamps("", root, root / kind):
                os.rmdir(root / kind)
        full = make_directory(root / f"full of {kind}")
        maker(full / kind)
        with fails(errno.ENOTEMPTY), stamps("", root, full):
            os.rmdir(full)
    with stamps("mtime ctime", root):
        os.rmdir(root / "directory")
    with fails(errno.ENOENT):
        os.rmdir(root / "directory")
    os.symlink("full of file", root / "link")
    with fails(errno.ENOTDIR):
        os.rmdir(root / "link")


def mkdir_does_not_replace(root: Path) -> None:
    for kind, maker in KINDS.items():
        maker(root / kind)
        with fails(errno.EEXIST, about=kind), stamps("", root, root / kind):
            os.mkdir(root / kind)


def a_removed_directory_is_dead(root: Path) -> None:
    os.mkdir(root / "directory")
    with opened(root / "directory") as fd:
        os.rmdir(root / "directory")
        assert os.fstat(fd).st_nlink == 0
        assert os.listdir(fd) == []
        for call in (
            lambda: os.open("new", os.O_CREAT | os.O_WRONLY, dir_fd=fd),
            lambda: os.mkdir("new", dir_fd=fd),
            lambda: os.mkfifo("new", dir_fd=fd),
            lambda: os.symlink("target", "new", dir_fd=fd),
            lambda: os.stat("missing", dir_fd=fd),
        ):
            with fails(errno.ENOENT):
                call()
        make(root / "file")
        with fails(errno.ENOENT):
            os.link(root / "file", "new", dst_dir_fd=fd)
        with fails(errno.ENOENT):
            os.rename(root / "file", "new", dst_dir_fd=fd)
        os.fchmod(fd, 0o700)
        os.utime(fd, ns=(5, 6))
        assert os.fstat(fd).st_mtime_ns == 6


def a_removed_working_directory_is_dead(root: Path) -> None:
    os.mkdir(root / "directory")
    os.chdir(root / "directory")
    os.rmdir(root / "directory")
    with fails(errno.ENOENT):
        os.getcwd()
    with fails(errno.ENOENT):
        os.mkdir("new")
    assert os.listdir(".") == []
    assert os.stat(".").st_nlink == 0


def a_directory_may_be_made_again_at_once(root: Path) -> None:
    for _ in range(50):
        os.mkdir(root / "directory")
        with opened(root / "directory") as fd:
            make(root / "directory" / "file")
            os.unlink(root / "directory" / "file")
            os.rmdir(root / "directory")
            os.mkdir(root / "directory")
            make(root / "directory" / "other")
            assert os.listdir(fd) == []
        assert os.listdir(root / "directory") == ["other"]
        os.unlink(root / "directory" / "other")
        os.rmdir(root / "directory")


def everything_works_relative_to_a_descriptor(root: Path) -> None:
    os.mkdir(root / "directory")
    with opened(root / "directory", os.O_PATH | os.O_DIRECTORY) as fd:
        os.rename(root / "directory", root / "renamed")
        os.close(os.open("file", os.O_CREAT | os.O_WRONLY, 0o644, dir_fd=fd))
        os.mkdir("sub", dir_fd=fd)
        os.symlink("file", "symlink", dir_fd=fd)
        os.link("file", "link", src_dir_fd=fd, dst_dir_fd=fd)
        os.mkfifo("fifo", dir_fd=fd)
        os.rename("link", "sub/moved", src_dir_fd=fd, dst_dir_fd=fd)
        os.chmod("file", 0o600, dir_fd=fd)
        os.chown("symlink", 1, 2, dir_fd=fd, follow_symlinks=False)
        os.utime("file", ns=(1, 2), dir_fd=fd)
        assert os.stat("sub/moved", dir_fd=fd).st_mtime_ns == 2
        assert os.access("file", os.R_OK, dir_fd=fd)
        os.unlink("fifo", dir_fd=fd)
        os.unlink("sub/moved", dir_fd=fd)
        os.rmdir("sub", dir_fd=fd)
    assert sorted(os.listdir(root / "renamed")) == ["file", "symlink"]


def a_file_is_no_place_to_work_relative_to(root: Path) -> None:
    with opened(make(root / "file")) as fd:
        for name in ("name", "..", "."):
            with fails(errno.ENOTDIR):
                os.stat(name, dir_fd=fd)
        with fails(errno.ENOTDIR):
            os.fchdir(fd)
        with fails(errno.ENOTDIR):
            os.listdir(fd)


def a_wide_and_deep_tree_is_walked_and_removed(root: Path) -> None:
    made = set()
    for a in range(6):
        for b in range(6):
            place = root / f"a{a}" / f"b{b}" / "c" / "d"
            os.makedirs(place)
            for name in ("x", "y"):
                make(place / name, name.encode() * (a + b))
                made.add((str(place / name), a + b))
    found = set()
    for directory, _, files in os.walk(root):
        for name in files:
            path = os.path.join(directory, name)
            found.add((path, os.stat(path).st_size))
    assert found == made
    shutil.rmtree(root / "a0")
    assert os.stat(root).st_nlink == 7
    for number in range(1, 6):
        shutil.rmtree(root / f"a{number}")
    assert os.stat(root).st_nlink == 2
    assert os.listdir(root) == []


def two_processes_may_fight_over_one_name(root: Path) -> None:
    """Whoever loses gets an errno that fits, never another one."""
    expected = {errno.EEXIST, errno.ENOENT, errno.ENOTEMPTY, errno.EISDIR, errno.ENOTDIR}
    pids = []
    for number in range(3):
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                _fight(root, number, expected)
                status = 0
            finally:
                os._exit(status)
        pids.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in pids] == [0, 0, 0]
    for name in os.listdir(root):
        path = root / name
        (shutil.rmtree if path.is_dir() else os.unlink)(path)
    assert os.stat(root).st_nlink == 2


def _fight(root: Path, number: int, expected: set[int]) -> None:
    name, mine = root / "name", root / f"mine{number}"
    for _ in range(150):
        for call in (
            lambda: os.mkdir(name),
            lambda: os.rename(name, mine),
            lambda: os.rename(mine, name),
            lambda: os.rmdir(name),
            lambda: os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY)),
            lambda: os.stat(name),
            lambda: os.unlink(name),
            lambda: os.rmdir(mine),
        ):
            try:
                call()
            except OSError as error:
                if error.errno not in expected:
                    raise
