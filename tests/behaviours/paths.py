"""Paths: how they are resolved, and what their errors are.  path_resolution(7)."""

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

from .assertions import KINDS, fails, make, opened, touch

PATH_MAX = 4096

Operation = Callable[[Path, Path], object]

# Everything that takes a path; the second is another file, for what takes two.
FOLLOWING: dict[str, Operation] = {
    "stat": lambda path, _: os.stat(path),
    "access": lambda path, _: touch(path, os.O_PATH),
    "open": lambda path, _: touch(path),
    "open for writing": lambda path, _: touch(path, os.O_WRONLY),
    "create": lambda path, _: touch(path, os.O_CREAT | os.O_WRONLY),
    "chmod": lambda path, _: os.chmod(path, 0o700),
    "chown": lambda path, _: os.chown(path, 1, 1),
    "truncate": lambda path, _: os.truncate(path, 0),
    "utime": lambda path, _: os.utime(path),
    "listdir": lambda path, _: os.listdir(path),
    "statvfs": lambda path, _: os.statvfs(path),
    "chdir": lambda path, _: os.chdir(path),
    "getxattr": lambda path, _: os.getxattr(path, "user.x"),
    "setxattr": lambda path, _: os.setxattr(path, "user.x", b"1"),
    "listxattr": lambda path, _: os.listxattr(path),
    "removexattr": lambda path, _: os.removexattr(path, "user.x"),
}
NOT_FOLLOWING: dict[str, Operation] = {
    "lstat": lambda path, _: os.lstat(path),
    "readlink": lambda path, _: os.readlink(path),
    "lchown": lambda path, _: os.lchown(path, 1, 1),
    "unlink": lambda path, _: os.unlink(path),
    "rmdir": lambda path, _: os.rmdir(path),
    "rename from": lambda path, other: os.rename(path, other),
    "link from": lambda path, other: os.link(path, f"{other}.link", follow_symlinks=False),
}
CREATING: dict[str, Operation] = {
    "mkdir": lambda path, _: os.mkdir(path),
    "mkfifo": lambda path, _: os.mkfifo(path),
    "mknod": lambda path, _: os.mknod(path, stat.S_IFREG | 0o644),
    "symlink": lambda path, _: os.symlink("target", path),
    "link to": lambda path, other: os.link(other, path),
    "rename to": lambda path, other: os.rename(other, path),
}
ALL_OPERATIONS = FOLLOWING | NOT_FOLLOWING | CREATING


def _all_fail(root: Path, operations: dict[str, Operation], path: Path, number: int) -> None:
    other = root / "other"
    if not other.exists():
        make(other)
    for name, operation in operations.items():
        with fails(number, about=f"{name} of {os.fsencode(path)[-40:]!r}"):
            operation(path, other)


def names_of_256_bytes_are_too_long_for_everything(root: Path) -> None:
    _all_fail(root, ALL_OPERATIONS, root / ("x" * 256), errno.ENAMETOOLONG)
    assert os.listdir(root) == ["other"]


def names_of_1000_bytes_are_too_long_for_everything(root: Path) -> None:
    _all_fail(root, ALL_OPERATIONS, root / ("x" * 1000), errno.ENAMETOOLONG)


def long_names_inside_a_path_are_too_long_for_everything(root: Path) -> None:
    _all_fail(root, ALL_OPERATIONS, root / ("x" * 256) / "y", errno.ENAMETOOLONG)


def _path_of_length(root: Path, length: int) -> Path:
    """A path below `root` of that many bytes, all its directories made."""
    path = os.fsencode(root)
    while length - len(path) > 250:
        path += b"/" + b"d" * 199
        os.mkdir(path)
    return Path(os.fsdecode(path + b"/" + b"f" * (length - len(path) - 1)))


def paths_one_short_of_path_max_work(root: Path) -> None:
    path = _path_of_length(root, PATH_MAX - 1)
    make(path, b"deep")
    assert path.read_bytes() == b"deep"


def symlinks_to_paths_one_short_of_path_max_work(root: Path) -> None:
    path = _path_of_length(root, PATH_MAX - 1)
    make(path, b"deep")
    os.symlink(path, root / "link")
    assert (root / "link").read_bytes() == b"deep"


def paths_of_path_max_are_too_long_for_everything(root: Path) -> None:
    _all_fail(root, ALL_OPERATIONS, _path_of_length(root, PATH_MAX), errno.ENAMETOOLONG)


def trees_deeper_than_path_max_work_through_descriptors(root: Path) -> None:
    depth, name = 60, "n" * 200
    fds = [os.open(root, os.O_RDONLY)]
    for _ in range(depth):
        os.mkdir(name, dir_fd=fds[-1])
        fds.append(os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=fds[-1]))
    fd = os.open("file", os.O_CREAT | os.O_RDWR, dir_fd=fds[-1])
    os.write(fd, b"bottom")
    assert os.pread(fd, 10, 0) == b"bottom"
    assert os.stat("file", dir_fd=fds[-1]).st_size == 6
    os.rename("file", "moved", src_dir_fd=fds[-1], dst_dir_fd=fds[-2])
    assert os.listdir(fds[-2]) in (["moved", name], [name, "moved"])
    os.unlink("moved", dir_fd=fds[-2])
    for parent in reversed(fds[:-1]):
        os.rmdir(name, dir_fd=parent)
    assert os.listdir(root) == []


def missing_names_are_missing_for_everything(root: Path) -> None:
    existing = {k: v for k, v in (FOLLOWING | NOT_FOLLOWING).items() if k != "create"}
    _all_fail(root, existing, root / "missing", errno.ENOENT)


def missing_directories_are_missing_for_everything(root: Path) -> None:
    _all_fail(root, ALL_OPERATIONS, root / "missing" / "name", errno.ENOENT)


def a_file_inside_a_path_is_no_directory_for_everything(root: Path) -> None:
    for kind, maker in KINDS.items():
        if kind not in ("directory", "symlink"):
            maker(root / kind)
            _all_fail(root, ALL_OPERATIONS, root / kind / "name", errno.ENOTDIR)
            _all_fail(root, ALL_OPERATIONS, root / kind / "..", errno.ENOTDIR)


def symlink_loops_are_found_by_everything_that_follows(root: Path) -> None:
    os.symlink("b", root / "a")
    os.symlink("a", root / "b")
    _all_fail(root, FOLLOWING, root / "a", errno.ELOOP)
    _all_fail(root, ALL_OPERATIONS, root / "a" / "name", errno.ELOOP)
    os.symlink("self", root / "self")
    _all_fail(root, FOLLOWING, root / "self", errno.ELOOP)


def forty_symlinks_are_followed_and_no_more(root: Path) -> None:
    make(root / "0", b"end")
    for number in range(1, 42):
        os.symlink(str(number - 1), root / str(number))
    assert (root / "40").read_bytes() == b"end"
    _all_fail(root, FOLLOWING, root / "41", errno.ELOOP)


def the_empty_path_is_missing(root: Path) -> None:
    os.chdir(root)
    make(root / "other")
    for call in (os.stat, os.unlink, os.rmdir, os.mkdir, os.mkfifo, os.readlink, os.listdir):
        with fails(errno.ENOENT, about=call.__name__):
            call("")
    with fails(errno.ENOENT):
        os.rename("other", "")
    with fails(errno.ENOENT):
        os.link("other", "")


def a_trailing_slash_asks_for_a_directory(root: Path) -> None:
    make(root / "file")
    os.mkdir(f"{root}/new/")
    os.rename(f"{root}/new/", f"{root}/renamed/")
    for call in (os.stat, os.lstat, os.unlink, os.readlink):
        with fails(errno.ENOTDIR, about=call.__name__):
            call(f"{root}/file/")
    with fails(errno.EISDIR):
        touch(f"{root}/missing/", os.O_CREAT | os.O_WRONLY)
    with fails(errno.ENOTDIR):
        os.rename(root / "file", f"{root}/other/")
    with fails(errno.ENOENT):
        os.symlink("target", f"{root}/link/")
    os.rmdir(f"{root}/renamed/")


def a_trailing_slash_follows_a_symlink(root: Path) -> None:
    os.mkdir(root / "directory")
    os.symlink("directory", root / "link")
    assert stat.S_ISDIR(os.lstat(f"{root}/link/").st_mode)
    assert stat.S_ISLNK(os.lstat(root / "link").st_mode)
    with fails(errno.ENOTDIR):
        os.rmdir(f"{root}/link/")


def dots_resolve_within_the_tree(root: Path) -> None:
    os.makedirs(root / "a" / "b")
    make(root / "a" / "file", b"1")
    for path in ("a/./file", "a/b/../file", "a/b/.././b/../file", "a//file", "./a/file"):
        assert os.path.samefile(f"{root}/{path}", root / "a" / "file")
    with opened(root / "a" / "b") as fd:
        assert os.stat("..", dir_fd=fd).st_ino == os.stat(root / "a").st_ino
        assert os.stat("../..", dir_fd=fd).st_ino == os.stat(root).st_ino


def dots_cannot_be_made_removed_or_renamed(root: Path) -> None:
    os.makedirs(root / "a" / "b")
    os.chdir(root / "a")
    for path in (".", "..", "../a/."):
        with fails(errno.EEXIST):
            os.mkdir(path)
        with fails(errno.EISDIR):
            os.unlink(path)
        with fails(errno.EBUSY):
            os.rename(path, "../new")
        with fails(errno.EBUSY):
            os.rename("b", path)
    with fails(errno.EINVAL):
        os.rmdir(".")
    with fails(errno.ENOTEMPTY):
        os.rmdir("..")
