"""Fifos, sockets and device nodes: fifo(7), unix(7), mknod(2)."""

import errno
import os
import socket
import stat
from pathlib import Path

from .assertions import ALICE, NODES, bind, fails, make, mode_of, opened, stamps, touch

SPECIAL = ("fifo", "socket", "char", "block")


def a_fifo_carries_bytes_between_processes(root: Path) -> None:
    os.mkfifo(root / "fifo")
    pid = os.fork()
    if pid == 0:
        with opened(root / "fifo", os.O_WRONLY) as fd:
            for number in range(100):
                os.write(fd, b"%d\n" % number)
        os._exit(0)
    with open(root / "fifo", "rb") as file:
        assert file.read().split() == [b"%d" % number for number in range(100)]
    os.waitpid(pid, 0)
    assert os.stat(root / "fifo").st_size == 0


def a_fifo_is_one_by_all_its_names(root: Path) -> None:
    os.mkfifo(root / "fifo")
    os.link(root / "fifo", root / "link")
    with (
        opened(root / "fifo", os.O_RDONLY | os.O_NONBLOCK) as reader,
        opened(root / "link", os.O_WRONLY) as writer,
    ):
        os.rename(root / "link", root / "renamed")
        os.write(writer, b"through")
        os.unlink(root / "fifo")
        assert os.read(reader, 10) == b"through"


def a_fifo_without_a_reader_is_no_device(root: Path) -> None:
    os.mkfifo(root / "fifo")
    with fails(errno.ENXIO):
        touch(root / "fifo", os.O_WRONLY | os.O_NONBLOCK)
    touch(root / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    touch(root / "fifo", os.O_RDWR)


def a_fifo_cannot_be_sought_in(root: Path) -> None:
    os.mkfifo(root / "fifo")
    with opened(root / "fifo", os.O_RDWR) as fd:
        with fails(errno.ESPIPE):
            os.lseek(fd, 0, os.SEEK_SET)
        with fails(errno.EINVAL):
            os.ftruncate(fd, 0)


def a_socket_connects_by_its_path(root: Path) -> None:
    server = bind(root / "socket")
    assert stat.S_ISSOCK(os.stat(root / "socket").st_mode)
    os.rename(root / "socket", root / "renamed")
    with socket.socket(socket.AF_UNIX) as client, opened(root, os.O_PATH) as fd:
        client.connect(f"/proc/self/fd/{fd}/renamed")
        peer, _ = server.accept()
        client.sendall(b"hello")
        assert peer.recv(10) == b"hello"
        peer.close()
    server.close()
    with socket.socket(socket.AF_UNIX) as client, opened(root, os.O_PATH) as fd:
        with fails(errno.ECONNREFUSED):
            client.connect(f"/proc/self/fd/{fd}/renamed")
        with fails(errno.ENOENT):
            client.connect(f"/proc/self/fd/{fd}/socket")


def a_socket_does_not_bind_to_a_name_in_use(root: Path) -> None:
    for kind, maker in NODES.items():
        maker(root / kind)
        with fails(errno.EADDRINUSE, about=kind), stamps("", root):
            bind(root / kind)


def a_socket_cannot_be_opened(root: Path) -> None:
    bind(root / "socket").close()
    for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR):
        with fails(errno.ENXIO):
            touch(root / "socket", flags)


def connecting_needs_a_writable_socket(root: Path) -> None:
    server = bind(root / "socket")
    os.chmod(root / "socket", 0o644)

    def connect() -> None:
        with socket.socket(socket.AF_UNIX) as client, opened(root, os.O_PATH) as fd:
            client.connect(f"/proc/self/fd/{fd}/socket")

    ALICE.fails(errno.EACCES, connect)
    os.chmod(root / "socket", 0o666)
    ALICE.does(connect)
    server.close()


def a_device_node_opens_its_device(root: Path) -> None:
    if os.statvfs(root).f_flag & os.ST_NODEV:
        return
    os.mknod(root / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(root / "zero", stat.S_IFCHR | 0o444, os.makedev(1, 5))
    with opened(root / "null", os.O_RDWR) as fd:
        assert os.write(fd, b"gone") == 4
        assert os.read(fd, 10) == b""
    with opened(root / "zero") as fd:
        assert os.read(fd, 10) == bytes(10)
    assert os.stat(root / "null").st_size == 0
    ALICE.fails(errno.EACCES, lambda: touch(root / "zero", os.O_WRONLY))


def a_device_without_a_driver_cannot_be_opened(root: Path) -> None:
    if os.statvfs(root).f_flag & os.ST_NODEV:
        return
    for kind in ("char", "block"):
        NODES[kind](root / kind)
        with fails(errno.ENXIO, errno.ENODEV):
            touch(root / kind)


def special_files_are_renamed_linked_and_removed(root: Path) -> None:
    for kind in SPECIAL:
        NODES[kind](root / kind)
        before = os.stat(root / kind)
        os.link(root / kind, root / "link")
        os.rename(root / "link", root / "renamed")
        os.chmod(root / "renamed", 0o600)
        os.chown(root / "renamed", 1, 2)
        os.utime(root / "renamed", ns=(5, 6))
        os.unlink(root / kind)
        after = os.stat(root / "renamed")
        assert (after.st_ino, after.st_rdev) == (before.st_ino, before.st_rdev)
        assert stat.S_IFMT(after.st_mode) == stat.S_IFMT(before.st_mode)
        assert (mode_of(root / "renamed"), after.st_uid, after.st_mtime_ns) == (0o600, 1, 6)
        os.unlink(root / "renamed")
    assert os.listdir(root) == []


def special_files_cannot_be_truncated(root: Path) -> None:
    for kind in SPECIAL:
        NODES[kind](root / kind)
        with fails(errno.EINVAL, about=kind), stamps("", root / kind):
            os.truncate(root / kind, 0)


def special_files_hold_no_user_xattrs(root: Path) -> None:
    for kind in SPECIAL:
        NODES[kind](root / kind)
        with fails(errno.EPERM, about=kind):
            os.setxattr(root / kind, "user.x", b"1")


def special_files_do_not_hide_ordinary_ones(root: Path) -> None:
    for kind in SPECIAL:
        NODES[kind](root / kind)
    make(root / "file", b"content")
    os.rename(root / "file", root / "fifo")
    assert (root / "fifo").read_bytes() == b"content"
