"""chown(2)."""

import errno
import os
from pathlib import Path

from .assertions import ALICE, BOB, KINDS, TEAM, make, opened, stamps


def _owner(path: Path) -> tuple[int, int]:
    st = os.lstat(path)
    return st.st_uid, st.st_gid


def chown_sets_owner_and_group_of_every_kind(root: Path) -> None:
    for kind, maker in KINDS.items():
        maker(root / kind)
        os.lchown(root / kind, 123, 456)
        assert _owner(root / kind) == (123, 456)
        os.lchown(root / kind, 2**32 - 3, 2**31 + 5)
        assert _owner(root / kind) == (2**32 - 3, 2**31 + 5)


def chown_sets_one_and_keeps_the_other(root: Path) -> None:
    make(root / "file")
    os.chown(root / "file", 123, -1)
    assert _owner(root / "file") == (123, 0)
    os.chown(root / "file", -1, 456)
    assert _owner(root / "file") == (123, 456)
    os.chown(root / "file", -1, -1)
    assert _owner(root / "file") == (123, 456)


def chown_follows_symlinks_and_lchown_does_not(root: Path) -> None:
    make(root / "file")
    os.symlink("file", root / "link")
    os.chown(root / "link", 1, 2)
    assert (_owner(root / "file"), _owner(root / "link")) == ((1, 2), (0, 0))
    os.lchown(root / "link", 3, 4)
    assert (_owner(root / "file"), _owner(root / "link")) == ((1, 2), (3, 4))


def chown_moves_ctime_only(root: Path) -> None:
    for kind, maker in KINDS.items():
        maker(root / kind)
        with stamps("ctime", root / kind), stamps("", root):
            os.lchown(root / kind, 1, 1)


def fchown_works_on_any_descriptor(root: Path) -> None:
    make(root / "file")
    with opened(root / "file") as fd:
        os.fchown(fd, 1, 2)
    with opened(root / "file", os.O_WRONLY) as fd:
        os.fchown(fd, -1, 3)
        assert os.fstat(fd).st_gid == 3
    assert _owner(root / "file") == (1, 3)


def giving_files_away_is_for_root(root: Path) -> None:
    for kind, maker in KINDS.items():
        path = root / kind
        maker(path)
        ALICE.owns(path)
        with stamps("", path):
            ALICE.fails(errno.EPERM, lambda path=path: os.lchown(path, BOB.uid, -1))
            BOB.fails(errno.EPERM, lambda path=path: os.lchown(path, BOB.uid, -1))
            BOB.fails(errno.EPERM, lambda path=path: os.lchown(path, -1, BOB.gid))
        assert _owner(path) == (ALICE.uid, ALICE.gid)


def owners_may_choose_among_their_groups(root: Path) -> None:
    path = ALICE.owns(make(root / "file"))
    ALICE.fails(errno.EPERM, lambda: os.chown(path, -1, TEAM))
    ALICE._replace(groups=(TEAM,)).does(lambda: os.chown(path, ALICE.uid, TEAM))
    assert _owner(path) == (ALICE.uid, TEAM)
    ALICE.does(lambda: os.chown(path, -1, ALICE.gid))
    assert _owner(path) == (ALICE.uid, ALICE.gid)


def a_new_owner_has_the_rights_at_once(root: Path) -> None:
    path = make(root / "file", b"content", 0o600)
    assert not ALICE.may(path.read_bytes)
    os.chown(path, ALICE.uid, -1)
    assert ALICE.does(path.read_bytes) == b"content"
    os.chown(path, BOB.uid, -1)
    assert not ALICE.may(path.read_bytes)
