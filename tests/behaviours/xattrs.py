"""Extended attributes: xattr(7)."""

import ctypes
import errno
import os
from pathlib import Path

from .assertions import ALICE, KINDS, NODES, fails, make, make_directory, opened, stamps

_libc = ctypes.CDLL(None, use_errno=True)


def _listed(path: Path | int, **options: bool) -> list[str]:
    return sorted(name for name in os.listxattr(path, **options) if name.startswith("user."))


def xattrs_are_set_read_listed_and_removed(root: Path) -> None:
    for path in (make(root / "file"), make_directory(root / "directory")):
        assert _listed(path) == []
        os.setxattr(path, "user.one", b"1")
        os.setxattr(path, "user.two", b"22")
        assert _listed(path) == ["user.one", "user.two"]
        assert os.getxattr(path, "user.two") == b"22"
        os.removexattr(path, "user.one")
        assert _listed(path) == ["user.two"]


def xattr_values_are_any_bytes(root: Path) -> None:
    path = make(root / "file")
    for value in (b"", b"\0", b"\xff\x00\xfe", bytes(range(256)), b"x" * 1000, b"short"):
        os.setxattr(path, "user.x", value)
        assert os.getxattr(path, "user.x") == value


def xattr_names_are_any_bytes(root: Path) -> None:
    path = make(root / "file")
    names = [
        "user.a",
        "user.A",
        "user.a.b.c",
        "user. ",
        "user.é",
        "user.\udcff",
        "user." + "x" * 250,
    ]
    for name in names:
        os.setxattr(path, name, os.fsencode(name))
    assert _listed(path) == sorted(names)
    assert all(os.getxattr(path, name) == os.fsencode(name) for name in names)
    for call in (
        lambda: os.setxattr(path, "user." + "x" * 251, b""),
        lambda: os.getxattr(path, "user." + "x" * 251),
        lambda: os.setxattr(path, "", b""),
    ):
        with fails(errno.ERANGE):
            call()


def missing_xattrs_are_no_data(root: Path) -> None:
    path = make(root / "file")
    with stamps("", path):
        with fails(errno.ENODATA):
            os.getxattr(path, "user.x")
        with fails(errno.ENODATA):
            os.removexattr(path, "user.x")
        with fails(errno.ENODATA):
            os.setxattr(path, "user.x", b"1", os.XATTR_REPLACE)
    assert _listed(path) == []


def xattr_create_and_replace_mean_it(root: Path) -> None:
    path = make(root / "file")
    os.setxattr(path, "user.x", b"1", os.XATTR_CREATE)
    with fails(errno.EEXIST), stamps("", path):
        os.setxattr(path, "user.x", b"2", os.XATTR_CREATE)
    assert os.getxattr(path, "user.x") == b"1"
    os.setxattr(path, "user.x", b"longer value", os.XATTR_REPLACE)
    assert os.getxattr(path, "user.x") == b"longer value"


def xattr_buffers_that_are_too_small_are_refused(root: Path) -> None:
    path = make(root / "file")
    os.setxattr(path, "user.x", b"12345")
    os.setxattr(path, "user.y", b"")
    name, buffer = os.fsencode(path), ctypes.create_string_buffer(100)
    assert _libc.getxattr(name, b"user.x", None, 0) == 5
    assert _libc.getxattr(name, b"user.x", buffer, 5) == 5
    assert _libc.getxattr(name, b"user.x", buffer, 4) == -1
    assert ctypes.get_errno() == errno.ERANGE
    assert _libc.getxattr(name, b"user.y", buffer, 1) == 0
    size = _libc.listxattr(name, None, 0)
    assert size >= 14
    assert _libc.listxattr(name, buffer, size) == size
    assert _libc.listxattr(name, buffer, size - 1) == -1
    assert ctypes.get_errno() == errno.ERANGE


def xattr_values_beyond_64_kib_are_refused(root: Path) -> None:
    path = make(root / "file")
    with fails(errno.E2BIG):
        os.setxattr(path, "user.x", b"x" * 65537)
    try:
        os.setxattr(path, "user.x", b"x" * 65536)
    except OSError as error:
        assert error.errno in (errno.ENOSPC, errno.E2BIG), error
        assert _listed(path) == []
    else:
        assert os.getxattr(path, "user.x") == b"x" * 65536


def many_xattrs_are_kept_apart(root: Path) -> None:
    path = make(root / "file")
    for number in range(60):
        os.setxattr(path, f"user.number{number}", b"%d" % number)
    assert len(_listed(path)) == 60
    for number in range(0, 60, 2):
        os.removexattr(path, f"user.number{number}")
    for number in range(1, 60, 2):
        assert os.getxattr(path, f"user.number{number}") == b"%d" % number
    assert len(_listed(path)) == 30


def xattrs_move_ctime_only(root: Path) -> None:
    for path in (make(root / "file"), make_directory(root / "directory")):
        with stamps("ctime", path), stamps("", root):
            os.setxattr(path, "user.x", b"1")
        with stamps("ctime", path):
            os.setxattr(path, "user.x", b"2")
        with stamps("ctime", path):
            os.removexattr(path, "user.x")
        with stamps("", path):
            os.listxattr(path)


def xattrs_belong_to_the_file_not_the_name(root: Path) -> None:
    path = make(root / "file")
    os.setxattr(path, "user.x", b"1")
    os.link(path, root / "link")
    assert os.getxattr(root / "link", "user.x") == b"1"
    os.rename(path, root / "renamed")
    os.setxattr(root / "renamed", "user.x", b"2")
    assert os.getxattr(root / "link", "user.x") == b"2"
    os.unlink(root / "renamed")
    os.unlink(root / "link")
    assert _listed(make(path)) == []


def xattrs_work_by_descriptor(root: Path) -> None:
    path = make(root / "file")
    with opened(path, os.O_RDWR) as fd:
        os.setxattr(fd, "user.x", b"1")
        os.rename(path, root / "renamed")
        os.setxattr(fd, "user.y", b"2")
        assert os.getxattr(root / "renamed", "user.y") == os.getxattr(fd, "user.y") == b"2"
        assert _listed(fd) == ["user.x", "user.y"]
        os.removexattr(fd, "user.x")
    assert _listed(root / "renamed") == ["user.y"]


def xattrs_follow_symlinks_unless_told(root: Path) -> None:
    make(root / "file")
    os.symlink("file", root / "link")
    os.setxattr(root / "link", "user.x", b"1")
    assert os.getxattr(root / "file", "user.x") == b"1"
    with fails(errno.EPERM):
        os.setxattr(root / "link", "user.x", b"2", follow_symlinks=False)
    assert _listed(root / "link", follow_symlinks=False) == []
    os.setxattr(root / "link", "trusted.x", b"link", follow_symlinks=False)
    assert os.getxattr(root / "link", "trusted.x", follow_symlinks=False) == b"link"
    with fails(errno.ENODATA):
        os.getxattr(root / "file", "trusted.x")


def trusted_xattrs_are_for_root(root: Path) -> None:
    for kind, maker in KINDS.items():
        path = root / kind
        maker(path)
        os.setxattr(path, "trusted.x", b"1", follow_symlinks=False)
        assert os.getxattr(path, "trusted.x", follow_symlinks=False) == b"1"
        ALICE.owns(path)
        for number, call in (
            (
                errno.EPERM,
                lambda path=path: os.setxattr(path, "trusted.x", b"2", 0, follow_symlinks=False),
            ),
            (
                errno.ENODATA,
                lambda path=path: os.getxattr(path, "trusted.x", follow_symlinks=False),
            ),
        ):
            ALICE.fails(number, call)
        names = ALICE.does(lambda path=path: os.listxattr(path, follow_symlinks=False))
        assert "trusted.x" not in names, kind


def unknown_namespaces_are_not_supported(root: Path) -> None:
    path = make(root / "file")
    for name in ("nonsense.x", "x", "usr.x", "system.x"):
        with fails(errno.EOPNOTSUPP, about=name):
            os.setxattr(path, name, b"1")
        with fails(errno.EOPNOTSUPP, about=name):
            os.getxattr(path, name)
    assert os.listxattr(path) == []


def xattrs_of_nodes_do_not_mix(root: Path) -> None:
    for number, kind in enumerate(NODES):
        NODES[kind](root / kind)
        os.setxattr(root / kind, "trusted.n", b"%d" % number)
    for number, kind in enumerate(NODES):
        assert os.getxattr(root / kind, "trusted.n") == b"%d" % number


def writing_drops_file_capabilities(root: Path) -> None:
    capability = bytes.fromhex("0100000200040000000000000000000000000000")  # cap_net_bind_service
    for change in (
        lambda path: path.write_bytes(b"x"),
        lambda path: os.truncate(path, 2),
        lambda path: os.chown(path, 1, 1),
    ):
        path = make(root / "program", b"program", 0o755)
        os.setxattr(path, "security.capability", capability)
        assert os.getxattr(path, "security.capability") == capability
        change(path)
        with fails(errno.ENODATA):
            os.getxattr(path, "security.capability")
        os.unlink(path)
