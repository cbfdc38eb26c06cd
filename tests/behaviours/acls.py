"""POSIX access control lists: acl(5), as the xattrs that setfacl(1) writes."""

import errno
import os
import struct
from pathlib import Path

from .assertions import ALICE, BOB, TEAM, fails, make, make_directory, mode_of, opened, touch

ACCESS, DEFAULT = "system.posix_acl_access", "system.posix_acl_default"
TAGS = {"u": 1, "user": 2, "g": 4, "group": 8, "m": 16, "o": 32}
NAMES = {number: tag for tag, number in TAGS.items()}
NOBODY = 0xFFFFFFFF


def _encode(*entries: tuple[str, int] | tuple[str, int, int]) -> bytes:
    """The kernel's form (posix_acl_xattr.h) of ("u", perm), ("user", perm, uid), …"""
    packed = [
        struct.pack("<HHI", TAGS[entry[0]], entry[1], entry[2] if len(entry) > 2 else NOBODY)
        for entry in entries
    ]
    return struct.pack("<I", 2) + b"".join(packed)


def _decode(value: bytes) -> list[tuple[str, int, int]]:
    entries = struct.iter_unpack("<HHI", value[4:])
    return [(NAMES[tag], perm, id_) for tag, perm, id_ in entries]


LETS_ALICE = _encode(("u", 6), ("user", 6, ALICE.uid), ("g", 4), ("m", 6), ("o", 0))


def an_acl_lets_a_named_user_in(root: Path) -> None:
    path = make(root / "file", b"content", 0o640)
    assert not ALICE.may(path.read_bytes)
    os.setxattr(path, ACCESS, LETS_ALICE)
    assert ALICE.does(path.read_bytes) == b"content"
    ALICE.does(lambda: touch(path, os.O_RDWR))
    assert not BOB.may(path.read_bytes)
    os.removexattr(path, ACCESS)
    assert not ALICE.may(path.read_bytes)


def an_acl_copied_as_xfs_stores_it_counts_at_once(root: Path) -> None:
    stored = "trusted.SGI_ACL_FILE"
    original, copy = make(root / "original", b"", 0o660), make(root / "copy", b"content", 0o660)
    os.setxattr(original, ACCESS, LETS_ALICE)
    assert not ALICE.may(copy.read_bytes)
    os.setxattr(copy, stored, os.getxattr(original, stored))
    assert ALICE.does(copy.read_bytes) == b"content"
    os.removexattr(copy, stored)
    assert not ALICE.may(copy.read_bytes)


def an_acl_keeps_a_named_user_out(root: Path) -> None:
    path = make(root / "file", b"content", 0o644)
    os.setxattr(
        path, ACCESS, _encode(("u", 6), ("user", 0, ALICE.uid), ("g", 4), ("m", 4), ("o", 4))
    )
    assert not ALICE.may(path.read_bytes)
    assert BOB.does(path.read_bytes) == b"content"


def an_acl_lets_a_named_group_in(root: Path) -> None:
    path = make(root / "file", b"content", 0o640)
    os.setxattr(path, ACCESS, _encode(("u", 6), ("g", 0), ("group", 4, TEAM), ("m", 4), ("o", 0)))
    assert not ALICE.may(path.read_bytes)
    assert ALICE._replace(groups=(TEAM,)).does(path.read_bytes) == b"content"


def the_mask_limits_and_is_the_group_class(root: Path) -> None:
    path = make(root / "file", b"content", 0o640)
    os.setxattr(path, ACCESS, LETS_ALICE)
    assert mode_of(path) == 0o660
    os.chmod(path, 0o640)
    assert ("m", 4, NOBODY) in _decode(os.getxattr(path, ACCESS))
    assert ("g", 4, NOBODY) in _decode(os.getxattr(path, ACCESS))
    assert ALICE.does(path.read_bytes) == b"content"
    ALICE.fails(errno.EACCES, lambda: touch(path, os.O_WRONLY))
    os.chmod(path, 0o600)
    assert not ALICE.may(path.read_bytes)


def an_acl_that_says_no_more_than_a_mode_becomes_one(root: Path) -> None:
    path = make(root / "file", b"content", 0o640)
    os.setxattr(path, ACCESS, _encode(("u", 7), ("g", 5), ("o", 1)))
    assert mode_of(path) == 0o751
    with fails(errno.ENODATA):
        os.getxattr(path, ACCESS)
    assert ACCESS not in os.listxattr(path)


def acls_are_listed_and_read_back(root: Path) -> None:
    for path in (make(root / "file"), make_directory(root / "directory")):
        os.setxattr(path, ACCESS, LETS_ALICE)
        assert ACCESS in os.listxattr(path)
        assert os.getxattr(path, ACCESS) == LETS_ALICE
    os.setxattr(root / "directory", DEFAULT, LETS_ALICE)
    assert {ACCESS, DEFAULT} <= set(os.listxattr(root / "directory"))
    assert os.getxattr(root / "directory", DEFAULT) == LETS_ALICE


def default_acls_are_inherited(root: Path) -> None:
    directory = make_directory(root / "directory")
    os.setxattr(directory, DEFAULT, LETS_ALICE)
    touch(directory / "file", os.O_CREAT | os.O_WRONLY, 0o666)
    os.mkdir(directory / "sub", 0o777)
    os.mkfifo(directory / "fifo", 0o666)
    os.symlink("nowhere", directory / "link")
    for name in ("file", "fifo"):
        assert ("user", 6, ALICE.uid) in _decode(os.getxattr(directory / name, ACCESS)), name
        assert mode_of(directory / name) == 0o660, name
    assert ALICE.may(lambda: touch(directory / "file", os.O_RDWR))
    assert os.getxattr(directory / "sub", DEFAULT) == LETS_ALICE
    assert ("user", 6, ALICE.uid) in _decode(os.getxattr(directory / "sub", ACCESS))
    with fails(errno.ENODATA):
        os.getxattr(directory / "file", DEFAULT)


def default_acls_take_the_place_of_the_umask(root: Path) -> None:
    directory = make_directory(root / "directory")
    os.setxattr(directory, DEFAULT, _encode(("u", 7), ("g", 7), ("o", 5)))
    os.umask(0o077)
    touch(directory / "file", os.O_CREAT | os.O_WRONLY, 0o666)
    assert mode_of(directory / "file") == 0o664
    os.mkdir(directory / "sub", 0o777)
    assert mode_of(directory / "sub") == 0o775


def default_acls_are_for_directories(root: Path) -> None:
    path = make(root / "file")
    with fails(errno.EACCES):
        os.setxattr(path, DEFAULT, LETS_ALICE)


def acls_are_set_by_the_owner_only(root: Path) -> None:
    path = ALICE.owns(make(root / "file", b"", 0o666))
    BOB.fails(errno.EPERM, lambda: os.setxattr(path, ACCESS, LETS_ALICE))
    ALICE.does(lambda: os.setxattr(path, ACCESS, LETS_ALICE))
    assert os.getxattr(path, ACCESS) == LETS_ALICE


def acls_that_make_no_sense_are_refused(root: Path) -> None:
    path = make(root / "file", b"", 0o640)
    for value in (
        b"nonsense",
        _encode(("u", 6)),
        _encode(("u", 6), ("user", 6, 5), ("g", 4), ("o", 0)),
        _encode(("u", 6), ("g", 4), ("o", 0))[:-1],
    ):
        with fails(errno.EINVAL, errno.EOPNOTSUPP):
            os.setxattr(path, ACCESS, value)
    assert mode_of(path) == 0o640


def acls_survive_rename_and_writing(root: Path) -> None:
    path = make(root / "file", b"", 0o640)
    os.setxattr(path, ACCESS, LETS_ALICE)
    os.rename(path, root / "renamed")
    with opened(root / "renamed", os.O_RDWR) as fd:
        os.write(fd, b"content")
        os.ftruncate(fd, 3)
    os.chown(root / "renamed", 1, 1)
    assert os.getxattr(root / "renamed", ACCESS) == LETS_ALICE
