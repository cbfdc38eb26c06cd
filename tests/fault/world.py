"""A client that knows what every one of its system calls has to answer.

Each thread owns a directory and keeps a model of it: names, what they lead to, content, mode,
attributes.  It does what a seeded generator says and compares: the result or the errno of each
call, and the whole tree at the end.  On a file system that keeps its word nothing ever differs,
whatever happens to its server.
"""

import errno
import mmap
import os
import random
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

NAMES = [b"a", b"b", b"c", b"d", b"e", b"f", b"long-" + b"x" * 200, b"\xff\xfe"]
SLOW = 0.005  # seconds; calls that took longer are reported


@dataclass(eq=False)
class Node:
    """A file system object."""

    kind: int
    mode: int = 0o644
    content: bytearray = field(default_factory=bytearray)
    target: bytes = b""
    children: dict[bytes, "Node"] = field(default_factory=dict)
    xattrs: dict[str, bytes] = field(default_factory=dict)
    links: int = 1


class Differs(AssertionError):
    """The file system did not answer what the model says."""


class World:
    """One thread's directory and its model."""

    def __init__(self, root: str, seed: int) -> None:
        self.chance = random.Random(seed)
        self.root = os.fsencode(root)
        self.top = Node(stat.S_IFDIR, 0o755)
        self.open: list[tuple[int, Node, bool]] = []  # descriptor, node, append
        self.calls = 0
        self.slow: list[tuple[float, float]] = []
        os.mkdir(self.root, 0o755)
        self.handle = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)  # open all the time

    # -- one call, compared -------------------------------------------------------------------

    def call(self, expected: int, function: Callable[..., Any], *args: Any, **more: Any) -> Any:
        """Call it; it must fail with errno `expected`, or succeed for zero."""
        began = time.monotonic()
        try:
            result = function(*args, **more)
            number = 0
        except OSError as error:
            result, number = None, error.errno or 0
        took = time.monotonic() - began
        self.calls += 1
        if took > SLOW:
            self.slow.append((began, began + took))
        if number == errno.EEXIST and expected == errno.ENOTEMPTY:
            number = expected  # rename(2) may say either; xfs says EEXIST
        if number != expected:
            got, wanted = (errno.errorcode.get(n, "success") for n in (number, expected))
            what = f"{function.__name__}{args[:3]}"
            raise Differs(f"call {self.calls}: {what:.200}: {got}, not {wanted}")
        return result

    def pick(self) -> tuple[bytes, Node, bytes, Node | None]:
        """A place: the path, the directory's node, the name, and what it holds."""
        directory, path = self.top, self.root
        below = [n for n, node in directory.children.items() if node.kind == stat.S_IFDIR]
        if below and self.chance.random() < 0.4:
            name = self.chance.choice(sorted(below))
            directory, path = directory.children[name], path + b"/" + name
        name = self.chance.choice(NAMES)
        return path + b"/" + name, directory, name, directory.children.get(name)

    def step(self) -> None:
        """One random change or look."""
        action = self.chance.choice(self.ACTIONS)
        action(self)

    # -- names --------------------------------------------------------------------------------

    def create(self) -> None:
        path, directory, name, held = self.pick()
        flags = os.O_CREAT | os.O_EXCL | os.O_RDWR
        fd = self.call(errno.EEXIST if held else 0, os.open, path, flags, 0o640)
        if fd is not None:
            directory.children[name] = node = Node(stat.S_IFREG, 0o640)
            self.keep_open(fd, node, False)

    def mkdir(self) -> None:
        path, directory, name, held = self.pick()
        if directory is not self.top:
            return
        self.call(errno.EEXIST if held else 0, os.mkdir, path, 0o750)
        if not held:
            directory.children[name] = Node(stat.S_IFDIR, 0o750)

    def mkfifo(self) -> None:
        path, directory, name, held = self.pick()
        self.call(errno.EEXIST if held else 0, os.mkfifo, path, 0o600)
        if not held:
            directory.children[name] = Node(stat.S_IFIFO, 0o600)

    def symlink(self) -> None:
        path, directory, name, held = self.pick()
        target = b"target%d" % self.calls
        self.call(errno.EEXIST if held else 0, os.symlink, target, path)
        if not held:
            directory.children[name] = Node(stat.S_IFLNK, 0o777, target=target)

    def link(self) -> None:
        path, _, _, held = self.pick()
        new, directory, name, taken = self.pick()
        if held is None or held.kind == stat.S_IFDIR:
            return
        self.call(errno.EEXIST if taken else 0, os.link, path, new, follow_symlinks=False)
        if not taken:
            directory.children[name] = held
            held.links += 1

    def unlink(self) -> None:
        path, directory, name, held = self.pick()
        expected = errno.ENOENT if held is None else 0
        if held is not None and held.kind == stat.S_IFDIR:
            expected = errno.EISDIR
        self.call(expected, os.unlink, path)
        if not expected:
            directory.children.pop(name).links -= 1

    def rmdir(self) -> None:
        path, directory, name, held = self.pick()
        expected = 0
        if held is None:
            expected = errno.ENOENT
        elif held.kind != stat.S_IFDIR:
            expected = errno.ENOTDIR
        elif held.children:
            expected = errno.ENOTEMPTY
        self.call(expected, os.rmdir, path)
        if not expected:
            del directory.children[name]

    def rename(self) -> None:
        path, directory, name, held = self.pick()
        new, new_directory, new_name, taken = self.pick()
        if held is not None and held.kind == stat.S_IFDIR and new_directory is not self.top:
            return
        expected = 0
        if held is None:
            expected = errno.ENOENT
        elif taken is not None and taken is not held:
            if held.kind == stat.S_IFDIR and taken.kind != stat.S_IFDIR:
                expected = errno.ENOTDIR
            elif taken.kind == stat.S_IFDIR and held.kind != stat.S_IFDIR:
                # A directory that leads to what is moved is not empty, and that is found first.
                expected = errno.ENOTEMPTY if taken is directory else errno.EISDIR
            elif taken.children:
                expected = errno.ENOTEMPTY
        self.call(expected, os.rename, path, new)
        if not expected and taken is not held:
            if taken is not None:
                taken.links -= 1
            new_directory.children[new_name] = directory.children.pop(name)

    # -- content and attributes ---------------------------------------------------------------

    def keep_open(self, fd: int, node: Node, append: bool) -> None:
        self.open.append((fd, node, append))
        if len(self.open) > 12:
            fd, *_ = self.open.pop(self.chance.randrange(len(self.open)))
            self.call(0, os.close, fd)

    def reopen(self) -> None:
        path, _, _, held = self.pick()
        if held is not None and held.kind == stat.S_IFREG:
            append = self.chance.random() < 0.5
            truncate = self.chance.random() < 0.1
            flags = os.O_RDWR | (os.O_APPEND if append else 0) | (os.O_TRUNC if truncate else 0)
            self.keep_open(self.call(0, os.open, path, flags), held, append)
            if truncate:
                held.content.clear()

    def write(self) -> None:
        if not self.open:
            return
        fd, node, append = self.chance.choice(self.open)
        size = self.chance.choice([1, 10, 5000, 70_000])
        data = self.chance.randbytes(size)
        if append:
            at = len(node.content)
            written = self.call(0, os.write, fd, data)
        else:
            at = self.chance.randrange(20_000)
            written = self.call(0, os.pwrite, fd, data, at)
        if written != size:
            raise Differs(f"{written} of {size} bytes written")
        if len(node.content) < at:
            node.content.extend(bytes(at - len(node.content)))
        node.content[at : at + size] = data

    def read(self) -> None:
        if self.open:
            fd, node, _ = self.chance.choice(self.open)
            at = self.chance.randrange(20_000)
            data = self.call(0, os.pread, fd, 50_000, at)
            if data != node.content[at : at + 50_000]:
                raise Differs(f"other content at {at}")
            if self.call(0, os.fstat, fd).st_size != len(node.content):
                raise Differs("other size")

    def look_through_mapping(self) -> None:
        if self.open:
            fd, node, _ = self.chance.choice(self.open)
            if node.content:
                with mmap.mmap(fd, len(node.content), prot=mmap.PROT_READ) as mapping:
                    if mapping[:] != node.content:
                        raise Differs("other content in a mapping")

    def truncate(self) -> None:
        if self.open:
            fd, node, _ = self.chance.choice(self.open)
            size = self.chance.randrange(30_000)
            self.call(0, os.ftruncate, fd, size)
            del node.content[size:]
            node.content.extend(bytes(size - len(node.content)))

    def chmod(self) -> None:
        path, _, _, held = self.pick()
        if held is not None and held.kind != stat.S_IFLNK:
            mode = 0o700 | self.chance.randrange(0o100)
            self.call(0, os.chmod, path, mode)
            held.mode = mode

    def setxattr(self) -> None:
        path, _, _, held = self.pick()
        if held is not None and held.kind in (stat.S_IFREG, stat.S_IFDIR):
            name = f"user.{self.chance.randrange(3)}"
            flags = self.chance.choice([0, os.XATTR_CREATE, os.XATTR_REPLACE])
            expected = 0
            if flags == os.XATTR_CREATE and name in held.xattrs:
                expected = errno.EEXIST
            if flags == os.XATTR_REPLACE and name not in held.xattrs:
                expected = errno.ENODATA
            value = b"v%d" % self.calls
            self.call(expected, os.setxattr, path, name, value, flags)
            if not expected:
                held.xattrs[name] = value

    def removexattr(self) -> None:
        path, _, _, held = self.pick()
        if held is not None and held.kind in (stat.S_IFREG, stat.S_IFDIR):
            name = f"user.{self.chance.randrange(3)}"
            self.call(0 if name in held.xattrs else errno.ENODATA, os.removexattr, path, name)
            held.xattrs.pop(name, None)

    def look(self) -> None:
        path, _, _, held = self.pick()
        st = self.call(0 if held else errno.ENOENT, os.lstat, path)
        if held is not None:
            found = stat.S_IFMT(st.st_mode), stat.S_IMODE(st.st_mode)
            if found != (held.kind, held.mode):
                raise Differs(f"{path!r} is {found}, not {(held.kind, held.mode)}")
            if held.kind != stat.S_IFDIR and st.st_nlink != held.links:
                raise Differs(f"{path!r} has {st.st_nlink} links, not {held.links}")

    def list(self) -> None:
        names = self.call(0, os.listdir, self.handle)
        if sorted(map(os.fsencode, names)) != sorted(self.top.children):
            raise Differs(f"other names: {names}")

    ACTIONS = (create, mkdir, mkfifo, symlink, link, unlink, unlink, rmdir, rename, rename,
               reopen, write, write, write, read, look_through_mapping, truncate, chmod, setxattr,
               removexattr, look, list)  # fmt: skip

    # -- the end ------------------------------------------------------------------------------

    def compare(self) -> None:
        """Compare everything with the model, then leave nothing open."""
        for fd, node, _ in self.open:
            if os.pread(fd, len(node.content) + 1, 0) != node.content:
                raise Differs("other content in an open file")
            os.close(fd)
        self.open.clear()
        self._compare(self.root, self.top)
        os.close(self.handle)

    def _compare(self, path: bytes, directory: Node) -> None:
        found = {entry.name for entry in os.scandir(path)}
        if found != set(directory.children):
            raise Differs(f"{path!r} holds {found}, not {set(directory.children)}")
        for name, node in directory.children.items():
            below = path + b"/" + name
            st = os.lstat(below)
            if (stat.S_IFMT(st.st_mode), stat.S_IMODE(st.st_mode)) != (node.kind, node.mode):
                raise Differs(f"{below!r} has mode {st.st_mode:o}")
            if node.kind == stat.S_IFDIR:
                self._compare(below, node)
            elif node.kind == stat.S_IFREG:
                with open(below, "rb") as file:
                    if file.read() != node.content:
                        raise Differs(f"{below!r} has other content")
            elif node.kind == stat.S_IFLNK and os.readlink(below) != node.target:
                raise Differs(f"{below!r} leads elsewhere")
            if node.kind in (stat.S_IFREG, stat.S_IFDIR):
                names = os.listxattr(below)
                held = {n: os.getxattr(below, n) for n in names if n.startswith("user.")}
                if held != node.xattrs:
                    raise Differs(f"{below!r} has attributes {held}, not {node.xattrs}")

    def abandon(self) -> None:
        """Close what is open after a failure."""
        for fd, *_ in self.open:
            with suppress(OSError):
                os.close(fd)
