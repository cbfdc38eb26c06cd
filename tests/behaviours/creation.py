"""Creation: whose new files are, and with which mode.  open(2), mkdir(2), mknod(2), inode(7)."""

import errno
import os
import stat
from pathlib import Path

from .assertions import (
    ALICE,
    DEVICE,
    KINDS,
    NODES,
    TEAM,
    fails,
    link_descriptor,
    make,
    make_directory,
    mode_of,
    opened,
    stamps,
    touch,
    umask,
)

CREATE = os.O_CREAT | os.O_WRONLY


def new_nodes_get_the_mode_less_the_umask(root: Path) -> None:
    for mask in (0, 0o22, 0o77, 0o777):
        with umask(mask):
            place = root / f"{mask:o}"
            os.mkdir(place)
            os.chmod(place, 0o755)
            touch(place / "file", CREATE, 0o666)
            os.mkdir(place / "directory", 0o777)
            os.mkfifo(place / "fifo", 0o666)
            os.mknod(place / "node", stat.S_IFREG | 0o666)
            os.mknod(place / "device", stat.S_IFCHR | 0o666, DEVICE)
            os.symlink("nowhere", place / "symlink")
        for name in ("file", "fifo", "node", "device"):
            assert mode_of(place / name) == 0o666 & ~mask, name
        assert mode_of(place / "directory") == 0o777 & ~mask
        assert mode_of(place / "symlink") == 0o777


def new_files_may_have_any_mode(root: Path) -> None:
    with umask(0):
        for mode in (0, 0o1, 0o4755, 0o2755, 0o1644, 0o7777, 0o4000):
            touch(root / f"{mode:o}", CREATE, mode)
            assert mode_of(root / f"{mode:o}") == mode


def new_directories_may_be_sticky_but_not_setuid(root: Path) -> None:
    with umask(0):
        os.mkdir(root / "sticky", 0o1777)
        os.mkdir(root / "setuid", 0o6755)
    assert mode_of(root / "sticky") == 0o1777
    assert mode_of(root / "setuid") == 0o755


def new_nodes_belong_to_the_caller(root: Path) -> None:
    os.chmod(root, 0o777)

    def make_all() -> None:
        for kind, maker in KINDS.items():
            if kind not in ("char", "block"):
                maker(root / kind)

    ALICE.does(make_all)
    for entry in os.listdir(root):
        st = os.lstat(root / entry)
        assert (st.st_uid, st.st_gid) == (ALICE.uid, ALICE.gid), entry
    assert len(os.listdir(root)) == 5


def new_nodes_in_a_setgid_directory_get_its_group(root: Path) -> None:
    shared = make_directory(root / "shared")
    os.chown(shared, 0, TEAM)
    os.chmod(shared, 0o2777)
    for kind, maker in KINDS.items():
        maker(shared / kind)
        assert os.lstat(shared / kind).st_gid == TEAM, kind
    ALICE.does(lambda: make(shared / "of alice"))
    assert os.stat(shared / "of alice").st_gid == TEAM
    assert os.stat(shared / "of alice").st_uid == ALICE.uid


def subdirectories_of_a_setgid_directory_are_setgid(root: Path) -> None:
    shared = make_directory(root / "shared")
    os.chown(shared, 0, TEAM)
    os.chmod(shared, 0o2777)
    os.mkdir(shared / "sub")
    assert mode_of(shared / "sub") == 0o2755
    ALICE.does(lambda: os.mkdir(shared / "sub of alice"))
    assert mode_of(shared / "sub of alice") == 0o2755
    os.mkdir(shared / "sub" / "deeper")
    assert os.stat(shared / "sub" / "deeper").st_gid == TEAM
    touch(shared / "file", CREATE, 0o644)
    assert mode_of(shared / "file") == 0o644


def setgid_is_lost_on_files_made_by_others_than_the_group(root: Path) -> None:
    shared = make_directory(root / "shared")
    os.chown(shared, 0, TEAM)
    os.chmod(shared, 0o2777)

    def create() -> None:
        with umask(0):
            touch(shared / "program", CREATE, 0o2775)

    ALICE.does(create)
    assert mode_of(shared / "program") == 0o775
    os.unlink(shared / "program")
    ALICE._replace(groups=(TEAM,)).does(create)
    assert mode_of(shared / "program") == 0o2775


def exclusive_creation_refuses_what_exists(root: Path) -> None:
    for kind, maker in KINDS.items():
        maker(root / kind)
        with fails(errno.EEXIST, about=kind), stamps("", root, root / kind):
            touch(root / kind, CREATE | os.O_EXCL)
        for again, other in KINDS.items():
            if again not in ("file", "socket"):
                with fails(errno.EEXIST, about=f"{again} over {kind}"):
                    other(root / kind)


def exclusive_creation_lets_one_of_many_win(root: Path) -> None:
    for number in range(20):
        pids = []
        for _ in range(4):
            pid = os.fork()
            if pid == 0:
                try:
                    touch(root / str(number), CREATE | os.O_EXCL)
                    os._exit(0)
                except FileExistsError:
                    os._exit(1)
                finally:
                    os._exit(2)
            pids.append(pid)
        codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
        assert sorted(codes) == [0, 1, 1, 1]


def creation_through_a_dangling_symlink_makes_its_target(root: Path) -> None:
    os.symlink("target", root / "link")
    with fails(errno.EEXIST):
        touch(root / "link", CREATE | os.O_EXCL)
    touch(root / "link", CREATE)
    assert stat.S_ISREG(os.lstat(root / "target").st_mode)
    assert stat.S_ISLNK(os.lstat(root / "link").st_mode)


def opening_to_create_keeps_an_existing_file(root: Path) -> None:
    make(root / "file", b"content", 0o640)
    with stamps("", root, root / "file"):
        touch(root / "file", CREATE, 0o777)
    assert mode_of(root / "file") == 0o640
    assert (root / "file").read_bytes() == b"content"


def a_creator_may_write_what_the_mode_forbids(root: Path) -> None:
    os.chmod(root, 0o777)

    def create() -> None:
        with opened(root / "file", os.O_CREAT | os.O_RDWR, 0) as fd:
            os.write(fd, b"mine")
            assert os.pread(fd, 9, 0) == b"mine"
        with fails(errno.EACCES):
            touch(root / "file")

    ALICE.does(create)
    assert (root / "file").read_bytes() == b"mine"


def directories_cannot_be_opened_for_writing(root: Path) -> None:
    for flags in (os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_TRUNC, CREATE, os.O_CREAT):
        with fails(errno.EISDIR, about=flags):
            touch(root, flags)


def open_flags_are_checked_against_the_kind(root: Path) -> None:
    for kind, maker in KINDS.items():
        maker(root / kind)
        if kind not in ("directory", "symlink"):
            with fails(errno.ENOTDIR, about=kind):
                touch(root / kind, os.O_DIRECTORY)
    touch(root / "directory", os.O_DIRECTORY)
    with fails(errno.ELOOP):
        touch(root / "symlink", os.O_NOFOLLOW)
    with opened(root / "symlink", os.O_NOFOLLOW | os.O_PATH) as fd:
        assert stat.S_ISLNK(os.fstat(fd).st_mode)
        assert os.readlink("", dir_fd=fd) == "nowhere"


def mknod_makes_every_kind(root: Path) -> None:
    for kind in (stat.S_IFREG, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK):
        os.mknod(root / str(kind), kind | 0o640, DEVICE)
        st = os.stat(root / str(kind))
        assert (stat.S_IFMT(st.st_mode), stat.S_IMODE(st.st_mode)) == (kind, 0o640)
        assert st.st_rdev == (DEVICE if kind in (stat.S_IFCHR, stat.S_IFBLK) else 0)
        assert (st.st_size, st.st_nlink) == (0, 1)


def device_numbers_are_kept(root: Path) -> None:
    _devices_are_kept(root, (0, 0), (1, 3), (8, 255), (240, 256), (511, 262143))


def device_numbers_of_32_bits_are_kept(root: Path) -> None:
    _devices_are_kept(root, (1, 262144), (512, 1), (4095, 1048575))


def device_numbers_of_9_and_18_bits_are_the_largest(root: Path) -> None:
    for number in (os.makedev(1, 262144), os.makedev(512, 1), os.makedev(4095, 1048575)):
        with fails(errno.EINVAL), stamps("", root):
            os.mknod(root / "device", stat.S_IFCHR | 0o600, number)
    assert os.listdir(root) == []


def _devices_are_kept(root: Path, *numbers: tuple[int, int]) -> None:
    for major, minor in numbers:
        for kind in (stat.S_IFCHR, stat.S_IFBLK):
            path = root / f"{kind}-{major}-{minor}"
            os.mknod(path, kind | 0o600, os.makedev(major, minor))
            device = os.stat(path).st_rdev
            assert (os.major(device), os.minor(device)) == (major, minor)


def users_may_make_fifos_but_no_devices(root: Path) -> None:
    os.chmod(root, 0o777)
    ALICE.does(lambda: os.mkfifo(root / "fifo"))
    ALICE.does(lambda: os.mknod(root / "socket", stat.S_IFSOCK | 0o600))
    for kind in (stat.S_IFCHR, stat.S_IFBLK):
        ALICE.fails(errno.EPERM, lambda kind=kind: os.mknod(root / "d", kind | 0o600, DEVICE))
    assert sorted(os.listdir(root)) == ["fifo", "socket"]


def creation_moves_the_times_of_the_directory(root: Path) -> None:
    for kind, maker in KINDS.items():
        with stamps("mtime ctime", root):
            maker(root / kind)


def refused_creation_leaves_the_directory_alone(root: Path) -> None:
    os.chmod(root, 0o755)
    for kind, maker in NODES.items():
        if kind not in ("char", "block"):
            with stamps("", root):
                ALICE.fails(errno.EACCES, lambda kind=kind, maker=maker: maker(root / kind))
    assert os.listdir(root) == []


def tmpfile_has_no_name_until_linked(root: Path) -> None:
    with opened(root, os.O_TMPFILE | os.O_RDWR, 0o600) as fd:
        os.write(fd, b"content")
        assert os.fstat(fd).st_nlink == 0
        assert os.listdir(root) == []
        link_descriptor(fd, root / "name")
    assert (root / "name").read_bytes() == b"content"


def tmpfile_is_refused(root: Path) -> None:
    with fails(errno.EOPNOTSUPP):
        touch(root, os.O_TMPFILE | os.O_RDWR, 0o600)
    assert os.listdir(root) == []
