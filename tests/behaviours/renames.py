"""rename(2)."""

import ctypes
import errno
import os
from pathlib import Path

from .assertions import KINDS, fails, make, make_directory, opened, stamps

RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT = 1, 2, 4

_libc = ctypes.CDLL(None, use_errno=True)


def _renameat2(old: Path, new: Path, flags: int) -> None:
    if _libc.renameat2(-100, os.fsencode(old), -100, os.fsencode(new), flags):
        raise OSError(ctypes.get_errno(), "renameat2")


def rename_keeps_the_node_of_every_kind(root: Path) -> None:
    os.mkdir(root / "other")
    for kind, maker in KINDS.items():
        maker(root / kind)
        before = os.lstat(root / kind)
        os.rename(root / kind, root / "renamed")
        os.rename(root / "renamed", root / "other" / kind)
        after = os.lstat(root / "other" / kind)
        fields = ["st_ino", "st_mode", "st_nlink", "st_uid", "st_mtime_ns"]
        if kind != "directory":  # whose size xfs lets depend on the parent's inode number
            fields.append("st_size")
        for field in fields:
            assert getattr(after, field) == getattr(before, field), f"{field} of {kind}"
        with fails(errno.ENOENT):
            os.lstat(root / kind)


def rename_replaces_every_kind_by_every_kind(root: Path) -> None:
    for old, make_old in KINDS.items():
        for new, make_new in KINDS.items():
            make_old(root / "old")
            make_new(root / "new")
            number = os.lstat(root / "old").st_ino
            if "directory" in (old, new) and old != new:
                due = errno.ENOTDIR if old == "directory" else errno.EISDIR
                with fails(due, about=f"{old} over {new}"), stamps("", root):
                    os.rename(root / "old", root / "new")
                (os.rmdir if old == "directory" else os.unlink)(root / "old")
            else:
                os.rename(root / "old", root / "new")
                assert os.lstat(root / "new").st_ino == number
                assert os.listdir(root) == ["new"]
            (os.rmdir if new == "directory" else os.unlink)(root / "new")


def rename_over_a_file_drops_one_link_of_it(root: Path) -> None:
    make(root / "new", b"new")
    make(root / "old", b"old")
    os.link(root / "old", root / "kept")
    with opened(root / "new") as fd, stamps("ctime", root / "kept", fd):
        os.rename(root / "new", root / "old")
    assert os.stat(root / "kept").st_nlink == 1
    assert (root / "old").read_bytes() == b"new"
    assert (root / "kept").read_bytes() == b"old"


def rename_to_its_own_name_changes_nothing(root: Path) -> None:
    make(root / "file", b"content")
    make_directory(root / "directory")
    with stamps("", root, root / "file", root / "directory"):
        os.rename(root / "file", root / "file")
        os.rename(root / "directory", root / "directory")
    assert (root / "file").read_bytes() == b"content"


def rename_over_another_link_of_the_same_file_changes_nothing(root: Path) -> None:
    make(root / "one", b"content")
    os.link(root / "one", root / "two")
    os.mkdir(root / "directory")
    os.link(root / "one", root / "directory" / "three")
    with stamps("", root, root / "one"):
        os.rename(root / "one", root / "two")
        os.rename(root / "two", root / "directory" / "three")
    assert sorted(os.listdir(root)) == ["directory", "one", "two"]
    assert os.stat(root / "one").st_nlink == 3


def rename_replaces_an_empty_directory(root: Path) -> None:
    make_directory(root / "old")
    make(root / "old" / "file", b"content")
    make_directory(root / "new")
    with opened(root / "new") as fd:
        os.rename(root / "old", root / "new")
        assert os.fstat(fd).st_nlink == 0
        assert os.listdir(fd) == []
    assert (root / "new" / "file").read_bytes() == b"content"
    assert os.stat(root).st_nlink == 3


def rename_refuses_a_directory_that_is_not_empty(root: Path) -> None:
    make_directory(root / "old")
    for kind, maker in KINDS.items():
        full = make_directory(root / f"full of {kind}")
        maker(full / kind)
        with fails(errno.ENOTEMPTY, errno.EEXIST, about=kind), stamps("", root, full):
            os.rename(root / "old", full)


def rename_refuses_to_move_a_directory_into_itself(root: Path) -> None:
    os.makedirs(root / "a" / "b" / "c")
    for target in (root / "a" / "new", root / "a" / "b" / "new", root / "a" / "b" / "c" / "new"):
        with fails(errno.EINVAL), stamps("", root, root / "a"):
            os.rename(root / "a", target)
    with fails(errno.EINVAL):
        os.rename(root / "a", root / "a" / "b")
    for ancestor in (root / "a", root / "a" / "b"):
        with fails(errno.ENOTEMPTY):
            os.rename(root / "a" / "b" / "c", ancestor)
    assert os.listdir(root / "a" / "b") == ["c"]


def rename_of_what_is_missing_changes_nothing(root: Path) -> None:
    make(root / "file", b"content")
    with stamps("", root, root / "file"):
        with fails(errno.ENOENT):
            os.rename(root / "missing", root / "file")
        with fails(errno.ENOENT):
            os.rename(root / "file", root / "missing" / "file")
        with fails(errno.ENOTDIR):
            os.rename(root / "file", root / "file" / "below")
    assert (root / "file").read_bytes() == b"content"


def rename_moves_a_directory_with_all_below(root: Path) -> None:
    os.makedirs(root / "from" / "tree" / "deep" / "deeper")
    os.mkdir(root / "to")
    make(root / "from" / "tree" / "deep" / "file", b"content")
    with opened(root / "from" / "tree" / "deep") as fd:
        os.rename(root / "from" / "tree", root / "to" / "moved")
        assert os.stat("file", dir_fd=fd).st_size == 7
        make(Path(f"/proc/self/fd/{fd}") / "new")
        above = os.stat("../..", dir_fd=fd).st_ino
    assert above == os.stat(root / "to").st_ino
    assert (root / "to" / "moved" / "deep" / "file").read_bytes() == b"content"
    assert sorted(os.listdir(root / "to" / "moved" / "deep")) == ["deeper", "file", "new"]


def rename_of_a_directory_counts_its_parents_links(root: Path) -> None:
    for name in ("from", "to", "from/moved"):
        os.mkdir(root / name)
    os.rename(root / "from" / "moved", root / "to" / "moved")
    assert (os.stat(root / "from").st_nlink, os.stat(root / "to").st_nlink) == (2, 3)
    os.mkdir(root / "from" / "again")
    os.rename(root / "to" / "moved", root / "from" / "again")
    assert (os.stat(root / "from").st_nlink, os.stat(root / "to").st_nlink) == (3, 2)


def rename_follows_no_symlinks_at_the_end(root: Path) -> None:
    make(root / "file", b"content")
    make_directory(root / "directory")
    os.symlink("file", root / "link")
    os.symlink("directory", root / "to directory")
    os.rename(root / "link", root / "moved")
    assert os.readlink(root / "moved") == "file"
    os.rename(root / "file", root / "to directory")
    assert (root / "to directory").read_bytes() == b"content"
    assert os.listdir(root / "directory") == []


def rename_below_the_working_directory_keeps_it(root: Path) -> None:
    os.makedirs(root / "a" / "b")
    os.chdir(root / "a" / "b")
    make(Path("file"), b"1")
    os.rename(root / "a", root / "renamed")
    assert os.getcwd() == str(root / "renamed" / "b")
    assert Path("file").read_bytes() == b"1"
    os.rename("../b", "../c")
    assert os.getcwd() == str(root / "renamed" / "c")


def renames_in_a_circle_end_where_they_began(root: Path) -> None:
    for name in "abc":
        make(root / name, name.encode())
    for _ in range(30):
        os.rename(root / "a", root / "spare")
        os.rename(root / "b", root / "a")
        os.rename(root / "c", root / "b")
        os.rename(root / "spare", root / "c")
    assert [(root / name).read_bytes() for name in "abc"] == [b"a", b"b", b"c"]


def rename_noreplace_refuses_an_existing_name(root: Path) -> None:
    make(root / "old", b"old")
    make(root / "new", b"new")
    with fails(errno.EEXIST):
        _renameat2(root / "old", root / "new", RENAME_NOREPLACE)
    _renameat2(root / "old", root / "free", RENAME_NOREPLACE)
    assert (root / "free").read_bytes() == b"old"


def rename_exchange_swaps_two_names(root: Path) -> None:
    make(root / "file", b"file")
    make_directory(root / "directory")
    _renameat2(root / "file", root / "directory", RENAME_EXCHANGE)
    assert (root / "directory").read_bytes() == b"file"
    assert os.listdir(root / "file") == []


def rename_flags_are_refused(root: Path) -> None:
    make(root / "old", b"old")
    make(root / "new", b"new")
    for flags in (RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT):
        target = root / ("free" if flags == RENAME_NOREPLACE else "new")
        with fails(errno.EINVAL):
            _renameat2(root / "old", target, flags)
    assert (root / "old").read_bytes() == b"old"
