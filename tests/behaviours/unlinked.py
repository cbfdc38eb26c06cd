"""Files without a name that are still open, and files that take their place."""

import errno
import os
import random
import stat
from pathlib import Path

from .assertions import ALICE, KINDS, fails, make, make_directory, mode_of, opened, stamps


def an_unlinked_file_is_read_and_written_on(root: Path) -> None:
    with opened(make(root / "file", b"content"), os.O_RDWR) as fd:
        os.unlink(root / "file")
        assert os.listdir(root) == []
        assert os.pread(fd, 20, 0) == b"content"
        os.pwrite(fd, b"more", 7)
        os.pwrite(fd, b"far", 1_000_000)
        assert os.fstat(fd).st_size == 1_000_003
        assert os.pread(fd, 13, 0) == b"contentmore\0\0"
        os.fsync(fd)


def an_unlinked_file_has_no_links(root: Path) -> None:
    for kind in ("file", "fifo", "socket", "symlink", "char"):
        KINDS[kind](root / kind)
        with opened(root / kind, os.O_PATH | os.O_NOFOLLOW) as fd:
            before = os.fstat(fd)
            os.unlink(root / kind)
            after = os.fstat(fd)
            assert (before.st_nlink, after.st_nlink) == (1, 0), kind
            assert (after.st_ino, after.st_mode) == (before.st_ino, before.st_mode)


def an_unlinked_file_is_truncated(root: Path) -> None:
    with opened(make(root / "file", b"content"), os.O_RDWR) as fd:
        os.unlink(root / "file")
        with stamps("mtime ctime", fd):
            os.ftruncate(fd, 3)
        assert os.pread(fd, 20, 0) == b"con"
        os.ftruncate(fd, 10)
        assert os.pread(fd, 20, 0) == b"con" + bytes(7)


def an_unlinked_file_changes_mode_owner_and_times(root: Path) -> None:
    with opened(make(root / "file"), os.O_RDONLY) as fd:
        os.unlink(root / "file")
        os.fchmod(fd, 0o400)
        os.fchown(fd, 1, 2)
        os.utime(fd, ns=(10**18 + 1, 10**18 + 2))
        st = os.fstat(fd)
        assert (stat.S_IMODE(st.st_mode), st.st_uid, st.st_gid) == (0o400, 1, 2)
        assert (st.st_atime_ns, st.st_mtime_ns) == (10**18 + 1, 10**18 + 2)


def an_unlinked_file_has_xattrs(root: Path) -> None:
    path = make(root / "file")
    os.setxattr(path, "user.before", b"1")
    with opened(path, os.O_RDWR) as fd:
        os.unlink(path)
        assert os.getxattr(fd, "user.before") == b"1"
        os.setxattr(fd, "user.after", b"2")
        assert sorted(os.listxattr(fd)) == ["user.after", "user.before"]
        os.removexattr(fd, "user.before")
        with fails(errno.ENODATA):
            os.getxattr(fd, "user.before")


def an_unlinked_file_is_opened_again_by_descriptor(root: Path) -> None:
    with opened(make(root / "file", b"content"), os.O_RDONLY) as fd:
        os.unlink(root / "file")
        with opened(f"/proc/self/fd/{fd}", os.O_RDWR) as again:
            os.pwrite(again, b"CON", 0)
        assert os.pread(fd, 20, 0) == b"CONtent"


def an_unlinked_file_and_its_successor_are_two(root: Path) -> None:
    fds = []
    for number in range(20):
        fd = os.open(root / "name", os.O_CREAT | os.O_EXCL | os.O_RDWR)
        os.write(fd, b"%d" % number)
        os.unlink(root / "name")
        fds.append(fd)
    make(root / "name", b"last")
    assert [os.pread(fd, 9, 0) for fd in fds] == [b"%d" % number for number in range(20)]
    numbers = {os.fstat(fd).st_ino for fd in fds} | {os.stat(root / "name").st_ino}
    assert len(numbers) == 21
    for fd in fds:
        os.close(fd)
    assert (root / "name").read_bytes() == b"last"


def a_replaced_file_and_its_successor_are_two(root: Path) -> None:
    make(root / "name", b"0")
    for number in range(1, 20):
        with opened(root / "name", os.O_RDWR) as fd:
            make(root / "new", b"%d" % number)
            os.rename(root / "new", root / "name")
            assert os.fstat(fd).st_nlink == 0
            assert os.pread(fd, 9, 0) == b"%d" % (number - 1)
            os.pwrite(fd, b"lost", 0)
            assert (root / "name").read_bytes() == b"%d" % number
            os.fchmod(fd, 0)
            assert mode_of(root / "name") == 0o644


def one_of_several_names_may_go(root: Path) -> None:
    make(root / "one", b"content")
    os.link(root / "one", root / "two")
    with opened(root / "one", os.O_RDWR) as fd:
        os.unlink(root / "one")
        assert os.fstat(fd).st_nlink == 1
        os.pwrite(fd, b"CON", 0)
        assert (root / "two").read_bytes() == b"CONtent"
        os.truncate(root / "two", 4)
        assert os.pread(fd, 9, 0) == b"CONt"
        os.unlink(root / "two")
        assert os.fstat(fd).st_nlink == 0
        assert os.pread(fd, 9, 0) == b"CONt"


def an_unlinked_file_keeps_the_rights_of_its_opening(root: Path) -> None:
    os.chmod(root, 0o777)

    def work() -> None:
        with opened(root / "file", os.O_CREAT | os.O_RDWR, 0) as fd:
            os.unlink(root / "file")
            os.write(fd, b"mine")
            assert os.pread(fd, 9, 0) == b"mine"
            os.fchmod(fd, 0o600)

    ALICE.does(work)


def space_of_unlinked_files_comes_back(root: Path) -> None:
    size = 8 << 20
    for _ in range(10):
        with opened(root / "file", os.O_CREAT | os.O_EXCL | os.O_RDWR) as fd:
            for start in range(0, size, 1 << 20):
                os.pwrite(fd, b"x" * (1 << 20), start)
            os.unlink(root / "file")
            assert os.pread(fd, 3, size - 3) == b"xxx"
    assert os.listdir(root) == []


def many_unlinked_files_stay_apart(root: Path) -> None:
    rng, contents = random.Random(5), {}
    for number in range(200):
        fd = os.open(root / f"file{number}", os.O_CREAT | os.O_RDWR)
        contents[fd] = rng.randbytes(rng.randrange(5000))
        os.write(fd, contents[fd])
    for number in range(200):
        os.unlink(root / f"file{number}")
    for fd, content in contents.items():
        assert os.pread(fd, 5000, 0) == content
        assert os.fstat(fd).st_nlink == 0
        os.close(fd)


def a_tree_may_be_removed_while_a_file_in_it_is_open(root: Path) -> None:
    deep = make_directory(make_directory(root / "a") / "b")
    with opened(make(deep / "file", b"content"), os.O_RDWR) as fd, opened(deep) as directory:
        os.unlink(deep / "file")
        os.rmdir(deep)
        os.rmdir(root / "a")
        assert os.pread(fd, 9, 0) == b"content"
        os.write(fd, b"CON")
        assert os.fstat(fd).st_size == 7
        assert os.fstat(directory).st_nlink == 0
    assert os.listdir(root) == []
