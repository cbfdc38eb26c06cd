"""Hard and symbolic links: link(2), symlink(2), unlink(2)."""

import errno
import os
import stat
from pathlib import Path

from .assertions import ALICE, KINDS, fails, link_descriptor, make, make_directory, opened, stamps

PATH_MAX = 4096


def a_link_is_another_name_of_the_same_file(root: Path) -> None:
    for kind, maker in KINDS.items():
        if kind == "directory":
            continue
        maker(root / kind)
        with stamps("ctime", root / kind), stamps("mtime ctime", root):
            os.link(root / kind, root / "link", follow_symlinks=False)
        one, two = os.lstat(root / kind), os.lstat(root / "link")
        assert one == two
        assert one.st_nlink == 2
        os.unlink(root / kind)
        assert os.lstat(root / "link").st_nlink == 1
        assert os.lstat(root / "link").st_mode == one.st_mode
        os.unlink(root / "link")


def links_are_counted(root: Path) -> None:
    make(root / "file", b"content")
    with opened(root / "file") as fd:
        for number in range(1, 50):
            os.link(root / "file", root / f"link{number}")
            assert os.stat(root / "file").st_nlink == os.fstat(fd).st_nlink == number + 1
        for number in range(49, 0, -1):
            os.unlink(root / f"link{number}")
            assert os.stat(root / "file").st_nlink == os.fstat(fd).st_nlink == number


def links_may_be_in_different_directories(root: Path) -> None:
    for name in ("a", "b", "c"):
        os.mkdir(root / name)
    make(root / "a" / "file", b"content")
    os.link(root / "a" / "file", root / "b" / "file")
    os.link(root / "b" / "file", root / "c" / "other")
    os.unlink(root / "a" / "file")
    os.rename(root / "b" / "file", root / "a" / "again")
    assert (root / "a" / "again").read_bytes() == (root / "c" / "other").read_bytes()
    assert os.stat(root / "a" / "again").st_nlink == 2


def two_thousand_links_in_one_directory_are_listed(root: Path) -> None:
    make(root / "0", b"content")
    for number in range(1, 2000):
        os.link(root / "0", root / str(number))
    assert os.stat(root / "1999").st_nlink == 2000
    assert sorted(map(int, os.listdir(root))) == list(range(2000))
    with os.scandir(root) as entries:
        assert len({entry.inode() for entry in entries}) == 1
    for number in range(1999):
        os.unlink(root / str(number))
    assert (root / "1999").read_bytes() == b"content"
    assert os.stat(root / "1999").st_nlink == 1


def directories_have_no_links(root: Path) -> None:
    make_directory(root / "directory")
    for target in (root / "link", root / "directory" / "self"):
        with fails(errno.EPERM), stamps("", root, root / "directory"):
            os.link(root / "directory", target)


def links_do_not_replace(root: Path) -> None:
    make(root / "file", b"content")
    for kind, maker in KINDS.items():
        maker(root / f"{kind}.there")
        with fails(errno.EEXIST, about=kind), stamps("", root, root / "file"):
            os.link(root / "file", root / f"{kind}.there")
    with fails(errno.EEXIST):
        os.link(root / "file", root / "file")
    assert os.stat(root / "file").st_nlink == 1


def a_link_to_a_symlink_is_to_the_symlink(root: Path) -> None:
    make(root / "file")
    os.symlink("file", root / "symlink")
    os.link(root / "symlink", root / "link", follow_symlinks=False)
    assert stat.S_ISLNK(os.lstat(root / "link").st_mode)
    assert os.lstat(root / "symlink").st_nlink == 2
    with opened(root) as fd:
        os.link("symlink", "followed", src_dir_fd=fd, dst_dir_fd=fd, follow_symlinks=True)
    assert os.lstat(root / "followed").st_ino == os.stat(root / "file").st_ino


def an_open_file_may_be_linked_by_descriptor(root: Path) -> None:
    with opened(make(root / "file", b"content")) as fd:
        link_descriptor(fd, root / "link")
    assert os.path.samefile(root / "file", root / "link")


def an_unlinked_file_cannot_be_linked_again(root: Path) -> None:
    with opened(make(root / "file", b"content")) as fd:
        os.unlink(root / "file")
        with fails(errno.ENOENT):
            link_descriptor(fd, root / "link")


def unlink_removes_every_kind_but_directories(root: Path) -> None:
    for kind, maker in KINDS.items():
        maker(root / kind)
        if kind == "directory":
            with fails(errno.EISDIR), stamps("", root, root / kind):
                os.unlink(root / kind)
        else:
            with stamps("mtime ctime", root):
                os.unlink(root / kind)
            with fails(errno.ENOENT):
                os.lstat(root / kind)
    assert os.listdir(root) == ["directory"]


def symlinks_keep_their_target_verbatim(root: Path) -> None:
    targets = [b"a", b"..", b"/", b"/etc/passwd", b"a//b/../c/", b"\xff\xfe", b" \n", b"x" * 300]
    targets += [b"y" * length for length in (59, 60, 61, 255, 256, 400, 1000, 1023)]
    _targets_are_kept(root, targets)


def symlinks_keep_targets_of_more_than_1023_bytes(root: Path) -> None:
    _targets_are_kept(root, [b"y" * length for length in (1024, 4000, PATH_MAX - 1)])


def symlinks_take_at_most_1023_bytes(root: Path) -> None:
    for length in (1024, PATH_MAX - 1):
        with fails(errno.ENAMETOOLONG), stamps("", root):
            os.symlink("y" * length, root / "link")
    assert os.listdir(root) == []


def _targets_are_kept(root: Path, targets: list[bytes]) -> None:
    for number, target in enumerate(targets):
        path = os.path.join(os.fsencode(root), b"%d" % number)
        os.symlink(target, path)
        assert os.readlink(path) == target
        st = os.lstat(path)
        assert (st.st_size, stat.S_IFMT(st.st_mode)) == (len(target), stat.S_IFLNK)
        assert (stat.S_IMODE(st.st_mode), st.st_nlink) == (0o777, 1)


def symlink_targets_of_path_max_are_too_long(root: Path) -> None:
    with fails(errno.ENAMETOOLONG), stamps("", root):
        os.symlink("x" * PATH_MAX, root / "link")
    with fails(errno.ENOENT):
        os.symlink("", root / "link")
    assert os.listdir(root) == []


def symlinks_do_not_replace(root: Path) -> None:
    for kind, maker in KINDS.items():
        maker(root / kind)
        with fails(errno.EEXIST, about=kind), stamps("", root):
            os.symlink("target", root / kind)


def only_symlinks_can_be_read_as_links(root: Path) -> None:
    for kind, maker in KINDS.items():
        maker(root / kind)
        if kind != "symlink":
            with fails(errno.EINVAL, about=kind):
                os.readlink(root / kind)


def symlinks_are_followed_relative_to_their_place(root: Path) -> None:
    os.makedirs(root / "a" / "b")
    make(root / "file", b"top")
    make(root / "a" / "file", b"inner")
    os.symlink("../file", root / "a" / "b" / "link")
    assert (root / "a" / "b" / "link").read_bytes() == b"inner"
    os.rename(root / "a" / "b" / "link", root / "a" / "link")
    assert (root / "a" / "link").read_bytes() == b"top"
    os.symlink(root / "a", root / "absolute")
    assert (root / "absolute" / "file").read_bytes() == b"inner"
    os.symlink("a/b", root / "directory")
    make(root / "directory" / "through", b"1")
    assert os.listdir(root / "a" / "b") == ["through"]


def a_symlink_may_be_replaced_while_looked_at(root: Path) -> None:
    for number in range(50):
        make(root / str(number), b"%d" % number)
        os.symlink(str(number), root / "new")
        os.rename(root / "new", root / "current")
        assert os.readlink(root / "current") == str(number)
        assert (root / "current").read_bytes() == b"%d" % number


def symlinks_have_owners(root: Path) -> None:
    os.chmod(root, 0o777)
    ALICE.does(lambda: os.symlink("nowhere", root / "link"))
    assert os.lstat(root / "link").st_uid == ALICE.uid
    assert ALICE.does(lambda: os.readlink(root / "link")) == "nowhere"
