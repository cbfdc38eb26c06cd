"""chmod(2), and when setuid and setgid go away by themselves: inode(7)."""

import errno
import os
import time
from pathlib import Path

from .assertions import (
    ALICE,
    BOB,
    KINDS,
    NODES,
    TEAM,
    fails,
    make,
    make_directory,
    mode_of,
    opened,
    stamps,
    touch,
)


def chmod_sets_every_bit_of_every_kind(root: Path) -> None:
    for kind, maker in NODES.items():
        maker(root / kind)
        for mode in (0, 0o111, 0o222, 0o444, 0o644, 0o1777, 0o2755, 0o4711, 0o7777):
            os.chmod(root / kind, mode)
            assert mode_of(root / kind) == mode, kind


def chmod_keeps_type_owner_and_content(root: Path) -> None:
    ALICE.owns(make(root / "file", b"content"))
    before = os.stat(root / "file")
    os.chmod(root / "file", 0o600)
    after = os.stat(root / "file")
    assert (after.st_ino, after.st_uid, after.st_gid) == (before.st_ino, ALICE.uid, ALICE.gid)
    assert (root / "file").read_bytes() == b"content"


def chmod_follows_symlinks(root: Path) -> None:
    make(root / "file")
    os.symlink("file", root / "link")
    os.chmod(root / "link", 0o600)
    assert mode_of(root / "file") == 0o600
    assert mode_of(root / "link") == 0o777


def chmod_moves_ctime_only(root: Path) -> None:
    for kind, maker in NODES.items():
        maker(root / kind)
        with stamps("ctime", root / kind), stamps("", root):
            os.chmod(root / kind, 0o600)


def fchmod_works_on_any_descriptor(root: Path) -> None:
    make(root / "file")
    for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR | os.O_APPEND):
        with opened(root / "file", flags) as fd, stamps("ctime", fd):
            os.fchmod(fd, 0o600 + flags % 8)
            assert mode_of(fd) == mode_of(root / "file") == 0o600 + flags % 8
    with opened(root) as fd:
        os.fchmod(fd, 0o711)
        assert mode_of(root) == 0o711
    with opened(root / "file", os.O_PATH) as fd, fails(errno.EBADF):
        os.fchmod(fd, 0o600)


def chmod_is_for_the_owner_and_root(root: Path) -> None:
    for kind, maker in NODES.items():
        maker(root / kind)
        ALICE.owns(root / kind)
        ALICE.does(lambda kind=kind: os.chmod(root / kind, 0o640))
        with stamps("", root / kind):
            BOB.fails(errno.EPERM, lambda kind=kind: os.chmod(root / kind, 0o777))
        assert mode_of(root / kind) == 0o640


def chmod_drops_setgid_for_owners_outside_the_group(root: Path) -> None:
    make(root / "file")
    os.chown(root / "file", ALICE.uid, TEAM)
    ALICE.does(lambda: os.chmod(root / "file", 0o2755))
    assert mode_of(root / "file") == 0o755
    ALICE._replace(groups=(TEAM,)).does(lambda: os.chmod(root / "file", 0o2755))
    assert mode_of(root / "file") == 0o2755


def chmod_of_an_open_file_does_not_close_it(root: Path) -> None:
    ALICE.owns(make(root / "file", b"content"))

    def read_on() -> None:
        with opened(root / "file", os.O_RDWR) as fd:
            os.chmod(root / "file", 0)
            assert os.pread(fd, 7, 0) == b"content"
            assert os.pwrite(fd, b"CONTENT", 0) == 7
            with fails(errno.EACCES):
                touch(root / "file")

    ALICE.does(read_on)


def _writes(path: Path) -> None:
    with opened(path, os.O_WRONLY) as fd:
        os.write(fd, b"x")


def writing_by_others_clears_setuid_and_setgid(root: Path) -> None:
    for mode in (0o4777, 0o2777, 0o6777):
        path = make(root / f"{mode:o}", b"program", mode)
        ALICE.does(lambda path=path: _writes(path))
        assert mode_of(path) == 0o777


def writing_by_the_owner_clears_setuid_and_setgid(root: Path) -> None:
    path = ALICE.owns(make(root / "program", b"program"))
    os.chmod(path, 0o6755)
    ALICE.does(lambda: _writes(path))
    assert mode_of(path) == 0o755


def writing_through_a_descriptor_clears_them_at_once(root: Path) -> None:
    path = make(root / "program", b"program", 0o6777)

    def write() -> None:
        with opened(path, os.O_RDWR) as fd:
            assert mode_of(fd) == 0o6777
            os.pwrite(fd, b"x", 3)
            assert mode_of(fd) == 0o777

    ALICE.does(write)


def writing_by_root_keeps_setuid(root: Path) -> None:
    path = make(root / "program", b"program", 0o6755)
    _writes(path)
    assert mode_of(path) == 0o6755


def writing_nothing_keeps_setuid(root: Path) -> None:
    path = make(root / "program", b"program", 0o4777)

    def write_nothing() -> None:
        with opened(path, os.O_WRONLY) as fd:
            os.write(fd, b"")

    ALICE.does(write_nothing)
    assert mode_of(path) == 0o4777


def writing_keeps_setgid_without_group_execution_for_members(root: Path) -> None:
    path = make(root / "file", b"content")
    os.chown(path, 0, TEAM)
    os.chmod(path, 0o2666)
    ALICE._replace(groups=(TEAM,)).does(lambda: _writes(path))
    assert mode_of(path) == 0o2666


def truncation_by_others_clears_setuid_and_setgid(root: Path) -> None:
    for size in (0, 3, 100):
        path = make(root / f"truncate{size}", b"program", 0o6777)
        ALICE.does(lambda path=path, size=size: os.truncate(path, size))
        assert mode_of(path) == 0o777, size
    path = make(root / "open", b"program", 0o6777)
    ALICE.does(lambda: touch(path, os.O_WRONLY | os.O_TRUNC))
    assert mode_of(path) == 0o777
    path = make(root / "descriptor", b"program", 0o6777)

    def truncate() -> None:
        with opened(path, os.O_WRONLY) as fd:
            os.ftruncate(fd, 1)

    ALICE.does(truncate)
    assert mode_of(path) == 0o777


def chown_clears_setuid_and_setgid_of_files(root: Path) -> None:
    for mode in (0o4755, 0o2755, 0o6711):
        for ids in ((ALICE.uid, ALICE.gid), (ALICE.uid, -1), (-1, ALICE.gid), (-1, -1)):
            path = make(root / "program", b"", mode)
            os.chown(path, *ids)
            assert mode_of(path) == mode & 0o777, f"{mode:o} {ids}"
            os.unlink(path)


def chown_by_the_owner_clears_setuid_and_setgid(root: Path) -> None:
    path = ALICE.owns(make(root / "program"))
    os.chmod(path, 0o6755)
    ALICE._replace(groups=(TEAM,)).does(lambda: os.chown(path, -1, TEAM))
    assert mode_of(path) == 0o755
    assert os.stat(path).st_gid == TEAM


def chown_that_sets_nothing_takes_the_owner_of_a_setuid_program(root: Path) -> None:
    path = make(root / "program", b"", 0o4755)
    time.sleep(0.02)  # on FUSE it may still be open for a moment
    with fails(errno.EPERM):
        ALICE.does(lambda: os.chown(path, -1, -1))
    assert mode_of(path) == 0o4755


def chown_keeps_setgid_of_directories(root: Path) -> None:
    path = make_directory(root / "directory", 0o7755)
    os.chown(path, ALICE.uid, ALICE.gid)
    assert mode_of(path) == 0o7755


def reading_and_linking_keep_setuid(root: Path) -> None:
    path = make(root / "program", b"program", 0o6755)
    ALICE.does(path.read_bytes)
    os.link(path, root / "link")
    os.rename(path, root / "renamed")
    os.utime(root / "renamed")
    assert mode_of(root / "link") == 0o6755


def a_symlink_keeps_its_mode(root: Path) -> None:
    KINDS["symlink"](root / "link")
    os.lchown(root / "link", ALICE.uid, ALICE.gid)
    assert mode_of(root / "link") == 0o777
