"""Who may do what: access(2), path_resolution(7), sticky directories."""

import errno
import os
from pathlib import Path

from .assertions import (
    ALICE,
    BOB,
    KINDS,
    TEAM,
    make,
    make_directory,
    opened,
    stamps,
    touch,
)

MEMBER = ALICE._replace(groups=(TEAM,))


def the_first_class_that_fits_decides(root: Path) -> None:
    path = make(root / "file", b"content")
    for user, uid, gid, shift in (
        (ALICE, ALICE.uid, BOB.gid, 6),
        (ALICE, BOB.uid, ALICE.gid, 3),
        (MEMBER, BOB.uid, TEAM, 3),
        (ALICE, BOB.uid, BOB.gid, 0),
        (ALICE, ALICE.uid, ALICE.gid, 6),
    ):
        os.chown(path, uid, gid)
        for bits in range(8):
            only, all_but = bits << shift, 0o777 & ~(7 << shift)
            for mode in (only, only | all_but):
                os.chmod(path, mode)
                got = user.does(lambda: [bit for bit in (4, 2, 1) if os.access(path, bit)])
                assert sum(got) == bits, f"{got} with {mode:o}"


def opening_needs_the_bits_of_its_direction(root: Path) -> None:
    path = ALICE.owns(make(root / "file", b"content"))
    for bits, allowed in ((0, ""), (4, "r"), (2, "w"), (6, "r w rw"), (1, ""), (7, "r w rw")):
        os.chmod(path, bits << 6)
        for name, flags in (("r", os.O_RDONLY), ("w", os.O_WRONLY), ("rw", os.O_RDWR)):
            may = ALICE.may(lambda flags=flags: touch(path, flags))
            assert may == (name in allowed.split()), f"{name} with {bits:o}"


def root_may_everything_but_execute_without_a_bit(root: Path) -> None:
    path = ALICE.owns(make(root / "file", b"content", 0))
    touch(path, os.O_RDWR)
    assert os.access(path, os.R_OK | os.W_OK)
    assert not os.access(path, os.X_OK)
    os.chmod(path, 0o001)
    assert os.access(path, os.X_OK)
    make(make_directory(root / "closed", 0) / "file")
    assert os.access(root / "closed", os.R_OK | os.W_OK | os.X_OK)


def supplementary_groups_count(root: Path) -> None:
    path = make(root / "file", b"content", 0o640)
    os.chown(path, 0, TEAM)
    many = tuple(range(61000, 61030))
    assert not ALICE.may(path.read_bytes)
    assert MEMBER.does(path.read_bytes) == b"content"
    assert ALICE._replace(groups=(*many, TEAM)).does(path.read_bytes) == b"content"
    directory = make_directory(root / "directory", 0o770)
    os.chown(directory, 0, TEAM)
    os.chmod(directory, 0o770)
    assert MEMBER.may(lambda: make(directory / "file"))
    assert not BOB.may(lambda: make(directory / "other"))


def every_directory_of_a_path_must_be_searchable(root: Path) -> None:
    inner = make_directory(make_directory(root / "outer") / "inner")
    make(inner / "file", b"content", 0o666)
    for closed in (root / "outer", inner):
        os.chmod(closed, 0o644)
        for call in (
            lambda: os.stat(inner / "file"),
            lambda: touch(inner / "file"),
            lambda: touch(inner / "new", os.O_CREAT | os.O_WRONLY),
            lambda: os.mkdir(inner / "new"),
            lambda: os.symlink("x", inner / "new"),
            lambda: os.mkfifo(inner / "new"),
            lambda: os.unlink(inner / "file"),
            lambda: os.rmdir(inner / "file"),
            lambda: os.rename(inner / "file", root / "new"),
            lambda: os.chmod(inner / "file", 0o600),
            lambda: os.truncate(inner / "file", 0),
            lambda: os.utime(inner / "file"),
            lambda: os.listxattr(inner / "file"),
            lambda: os.stat(inner / "missing"),
        ):
            ALICE.fails(errno.EACCES, call)
        os.chmod(closed, 0o755)
    assert ALICE.does((inner / "file").read_bytes) == b"content"


def a_searchable_directory_need_not_be_readable(root: Path) -> None:
    directory = make_directory(root / "directory", 0o711)
    make(directory / "file", b"content")
    ALICE.fails(errno.EACCES, lambda: os.listdir(directory))
    assert ALICE.does((directory / "file").read_bytes) == b"content"
    ALICE.fails(errno.ENOENT, lambda: os.stat(directory / "missing"))


def a_readable_directory_lists_names_only(root: Path) -> None:
    directory = make_directory(root / "directory", 0o744)
    make(directory / "file", b"content")
    assert ALICE.does(lambda: os.listdir(directory)) == ["file"]
    ALICE.fails(errno.EACCES, lambda: os.lstat(directory / "file"))


def changing_names_needs_a_writable_directory(root: Path) -> None:
    closed = make_directory(root / "closed")
    os.chmod(root, 0o777)
    ALICE.owns(make(closed / "file"))
    ALICE.owns(make_directory(closed / "directory"))
    ALICE.owns(make(root / "outside"))
    with stamps("", closed):
        for call in (
            lambda: make(closed / "new"),
            lambda: os.mkdir(closed / "new"),
            lambda: os.symlink("target", closed / "new"),
            lambda: os.mkfifo(closed / "new"),
            lambda: os.link(root / "outside", closed / "new"),
            lambda: os.unlink(closed / "file"),
            lambda: os.rmdir(closed / "directory"),
            lambda: os.rename(closed / "file", closed / "new"),
            lambda: os.rename(closed / "file", root / "new"),
            lambda: os.rename(root / "outside", closed / "new"),
            lambda: os.rename(root / "outside", closed / "file"),
        ):
            ALICE.fails(errno.EACCES, call)
    assert sorted(os.listdir(closed)) == ["directory", "file"]


def removing_a_file_needs_no_right_on_the_file(root: Path) -> None:
    directory = ALICE.owns(make_directory(root / "directory", 0o755))
    for kind, maker in KINDS.items():
        maker(directory / kind)
        if kind != "symlink":
            os.chmod(directory / kind, 0)
        remove = os.rmdir if kind == "directory" else os.unlink
        ALICE.does(lambda kind=kind, remove=remove: remove(directory / kind))
    assert os.listdir(directory) == []


def sticky_directories_protect_files_of_others(root: Path) -> None:
    sticky = make_directory(root / "sticky", 0o1777)
    os.chmod(root, 0o777)
    for kind, maker in KINDS.items():
        path = sticky / kind
        maker(path)
        ALICE.owns(path)
        remove = os.rmdir if kind == "directory" else os.unlink
        with stamps("", sticky, path):
            BOB.fails(errno.EPERM, lambda path=path, remove=remove: remove(path))
            BOB.fails(errno.EPERM, lambda path=path: os.rename(path, sticky / "renamed"))
            BOB.fails(errno.EPERM, lambda path=path: os.rename(path, root / "renamed"))
        ALICE.does(lambda path=path: os.rename(path, sticky / "mine"))
        ALICE.does(lambda remove=remove: remove(sticky / "mine"))
    assert os.listdir(sticky) == []


def sticky_directories_protect_targets_of_renames(root: Path) -> None:
    sticky = make_directory(root / "sticky", 0o1777)
    ALICE.owns(make(sticky / "of alice", b"alice"))
    BOB.owns(make(sticky / "of bob", b"bob"))
    BOB.fails(errno.EPERM, lambda: os.rename(sticky / "of bob", sticky / "of alice"))
    assert (sticky / "of alice").read_bytes() == b"alice"
    os.chmod(sticky, 0o777)
    BOB.does(lambda: os.rename(sticky / "of bob", sticky / "of alice"))
    assert (sticky / "of alice").read_bytes() == b"bob"


def the_owner_of_a_sticky_directory_may_remove_all(root: Path) -> None:
    sticky = BOB.owns(make_directory(root / "sticky"))
    os.chmod(sticky, 0o1777)
    for name in ("file", "other"):
        ALICE.owns(make(sticky / name))
    BOB.does(lambda: os.rename(sticky / "file", sticky / "renamed"))
    BOB.does(lambda: os.unlink(sticky / "renamed"))
    os.unlink(sticky / "other")
    assert os.listdir(sticky) == []


def moving_a_directory_away_needs_a_right_on_it(root: Path) -> None:
    """Its ".." changes."""
    os.chmod(root, 0o777)
    target = ALICE.owns(make_directory(root / "target"))
    moved = BOB.owns(make_directory(root / "moved"))
    ALICE.fails(errno.EACCES, lambda: os.rename(moved, target / "moved"))
    ALICE.does(lambda: os.rename(moved, root / "renamed"))
    os.chmod(root / "renamed", 0o757)
    ALICE.does(lambda: os.rename(root / "renamed", target / "moved"))


def truncating_needs_a_writable_file(root: Path) -> None:
    path = make(root / "file", b"content")
    with stamps("", path):
        ALICE.fails(errno.EACCES, lambda: os.truncate(path, 0))
        ALICE.fails(errno.EACCES, lambda: touch(path, os.O_RDONLY | os.O_TRUNC))
    assert path.read_bytes() == b"content"


def a_descriptor_keeps_the_rights_of_its_opening(root: Path) -> None:
    path = make(root / "file", b"content", 0o600)
    with opened(path, os.O_RDWR) as fd:

        def use() -> None:
            assert os.pread(fd, 7, 0) == b"content"
            os.pwrite(fd, b"C", 0)
            os.ftruncate(fd, 4)

        ALICE.does(use)
    assert path.read_bytes() == b"Cont"


def user_xattrs_need_the_rights_of_content(root: Path) -> None:
    path = make(root / "file", b"", 0o644)
    os.setxattr(path, "user.x", b"1")
    assert ALICE.does(lambda: os.getxattr(path, "user.x")) == b"1"
    ALICE.fails(errno.EACCES, lambda: os.setxattr(path, "user.x", b"2"))
    ALICE.fails(errno.EACCES, lambda: os.removexattr(path, "user.x"))
    os.chmod(path, 0o600)
    ALICE.fails(errno.EACCES, lambda: os.getxattr(path, "user.x"))
