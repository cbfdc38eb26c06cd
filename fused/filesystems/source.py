"""Which file of the source an inode of the mount is, whatever names it has or had.

Rules of identity
- A file is what name_to_handle_at(2) says it is: a handle tells a file from a later one that got
  its inode number.  Where a file system has no handles, it is (device, inode number) found again
  under its last known name.
- The number that users see, st_ino, is also the FUSE node id.  It is the source's own st_ino; a
  file on another device below the source gets (index of the device << 48 | st_ino), or when that
  does not fit a number that no file has.
- A file that got the number of one that the kernel still knows has another generation: the kernel
  takes it for a new inode and ends the old one.
- No descriptor is held for an inode, but for a bounded number that is at hand and for those that
  have no name any more.
"""

import errno
import os
import stat
import struct
from collections import OrderedDict

from fused.filesystems import syscalls
from fused.filesystems.survival import KnownInodes, Record

ROOT = 1
AT_HAND = 256  # descriptors kept for speed
DEVICE_SHIFT, DEVICES = 48, 1 << 14
LOCAL = {0xEF53, 0x58465342, 0x9123683E, syscalls.TMPFS}  # statfs(2): ext4, xfs, btrfs
TO_NAME = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC  # open(2) of whatever has a name
ALIAS = 1 << 62  # node ids from here on are no file's own number
_DEVICE = struct.Struct("=Q")


def _stale() -> OSError:
    return OSError(errno.ESTALE, os.strerror(errno.ESTALE))


class Source:
    """The files below a directory.

    Invariants (`check`): `_hand` holds at most AT_HAND descriptors; no node is both at hand and
    nameless; what is lent is borrowed from one handle; every alias is a known inode.
    """

    def __init__(self, root: int, record: Record, sole: bool) -> None:
        """`root` is a descriptor of the source that can be read (not O_PATH).  `sole`: names are
        changed by nobody else."""
        self.root, self._record, self._sole = root, record, sole
        self._inodes: KnownInodes = record.inodes
        st = os.fstat(root)
        self.device, self._root_number = st.st_dev, st.st_ino
        self._mounts: dict[int, int] = {}  # device -> descriptor that can be read
        self._indexes: dict[int, int] = {}  # other devices -> index in their node ids
        self._handleless: set[int] = set()
        self._hand: OrderedDict[int, int] = OrderedDict()  # node -> O_PATH descriptor, by last use
        self._nameless: dict[int, int] = {}  # node -> O_PATH descriptor kept in the fd store
        self._lent: dict[int, int] = {}  # node -> descriptor of an open handle of it
        self._borrowed: dict[int, int] = {}  # descriptor of an open handle -> node
        self._aliases: dict[bytes, int] = {}  # key -> node
        self._alias_keys: dict[int, bytes] = {}
        self._next_alias = ALIAS
        self._keys: dict[int, bytes] = {}  # of inodes that are just becoming known
        self.local = True  # whether closing a file has no error to tell
        self._add_mount(st.st_dev, root)

    # -- from a name to a node -------------------------------------------------------------------

    def identify(self, parent: int, name: bytes, st: os.stat_result) -> int:
        """The node of what `name` holds, whose attributes are `st`; `key` is ready for it."""
        node = self.number(st)
        if node in self._inodes:
            if self._is_open(node):
                return node  # what is held open cannot have lost its number to another file
            by_name = st.st_dev in self._handleless
            if self._sole and not by_name and not self._inodes.unlinked(node):
                return node  # nor can what still has a name
            key = self._make_key(parent, name, st)
            if not self._inodes.has_key(node, key):
                self._inodes.reuse(node, key, parent, name)
            elif by_name and self._inodes.place(node) != (parent, name):
                self._inodes.rename(node, parent, name)  # the name by which it is found again
            return node
        if node == ROOT:
            return node
        if stat.S_ISDIR(st.st_mode) and st.st_dev not in self._mounts:
            self._note_mount(parent, name, st.st_dev)
        key = self._make_key(parent, name, st)
        if node == 0:
            node = self._alias(key)
        if node not in self._inodes:
            self._keys[node] = key
        return node

    def _alias(self, key: bytes) -> int:
        node = self._aliases.get(key)
        if node is None:
            node = self._next_alias
            self._next_alias += 1
            self._aliases[key], self._alias_keys[node] = node, key
        return node

    def generation(self, node: int) -> int:
        """What tells users of a node from those of an earlier file with its number."""
        return self._inodes.generation(node) if node in self._inodes else 0

    def number(self, st: os.stat_result) -> int:
        """The node id that a file with these attributes has unless another one holds it; zero when
        only an alias will do."""
        if st.st_dev == self.device:
            if st.st_ino == self._root_number:
                return ROOT
            return st.st_ino if ROOT < st.st_ino < ALIAS else 0
        return self.on_device(st.st_dev, st.st_ino)

    def on_device(self, device: int, number: int) -> int:
        """Like `number`, from device and inode number."""
        if device == self.device:
            return ROOT if number == self._root_number else number
        index = self._indexes.setdefault(device, len(self._indexes) + 1)
        fits = number < 1 << DEVICE_SHIFT and index < DEVICES
        return index << DEVICE_SHIFT | number if fits else 0

    def key(self, node: int) -> bytes:
        """For the ledger: device, then file handle, or the inode number where there is none."""
        return self._keys.pop(node)

    def _make_key(self, parent: int, name: bytes, st: os.stat_result) -> bytes:
        device = _DEVICE.pack(st.st_dev)
        if st.st_dev not in self._handleless:
            try:
                return device + syscalls.name_to_handle(self.path_fd(parent), name)
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.EOVERFLOW):
                    raise
                self._handleless.add(st.st_dev)
        return device + _DEVICE.pack(st.st_ino)

    def _note_mount(self, parent: int, name: bytes, device: int) -> None:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        self._add_mount(device, os.open(name, flags, dir_fd=self.path_fd(parent)))

    def _add_mount(self, device: int, fd: int) -> None:
        """Note a descriptor of a file system, and whether file handles can be used there."""
        self._mounts[device] = fd
        self.local = self.local and syscalls.fs_type(fd) in LOCAL
        try:
            handle = syscalls.name_to_handle(fd, b"")
            os.close(syscalls.open_by_handle(fd, handle, os.O_PATH))
        except OSError:  # it has none, or a container's seccomp filter forbids to open them
            self._handleless.add(device)

    # -- from a node to a descriptor -------------------------------------------------------------

    def path_fd(self, node: int) -> int:
        """A descriptor of the inode, O_PATH or an open handle's; open for the next AT_HAND calls
        at least, or until that handle is closed.  OSError ESTALE."""
        fd = self._hand.get(node)
        if fd is not None:
            self._hand.move_to_end(node)
            return fd
        if node == ROOT:
            return self.root
        fd = self._nameless.get(node) or self._lent.get(node)
        if fd is not None:
            return fd
        fd = self._find(node, os.O_PATH)
        self._put_at_hand(node, fd)
        return fd

    def open(self, node: int, flags: int) -> int:
        """open(2) of the inode, whatever its name is now; the descriptor is the caller's."""
        if self._is_open(node) or node == ROOT:
            return os.open(b"/proc/self/fd/%d" % self.path_fd(node), flags | os.O_CLOEXEC)
        return self._find(node, flags)

    def hold(self, node: int, parent: int, name: bytes) -> None:
        """Have an inode at hand that is about to lose its name, if the kernel knows it."""
        if node not in self._inodes or self._is_open(node):
            return
        try:
            fd = os.open(name, TO_NAME, dir_fd=self.path_fd(parent))
        except OSError:
            return
        if self._sole or self.number(os.fstat(fd)) == node:
            self._put_at_hand(node, fd)
        else:
            os.close(fd)

    def _put_at_hand(self, node: int, fd: int) -> None:
        if len(self._hand) >= AT_HAND:
            os.close(self._hand.popitem(last=False)[1])
        self._hand[node] = fd

    def _is_open(self, node: int) -> bool:
        return node in self._hand or node in self._lent or node in self._nameless

    def lend(self, node: int, fd: int) -> None:
        """`fd` is open on the inode and may be used for it until it is taken back."""
        self._lent[node], self._borrowed[fd] = fd, node

    def node_of(self, fd: int) -> int:
        """The node that a lent descriptor is open on; zero for any other."""
        return self._borrowed.get(fd, 0)

    def take_back(self, fd: int) -> None:
        """The descriptor is about to be closed."""
        node = self._borrowed.pop(fd, 0)
        if self._lent.get(node) == fd:
            del self._lent[node]

    def _find(self, node: int, flags: int) -> int:
        try:
            key = self._inodes.key(node)
        except KeyError:
            raise _stale() from None
        device, handle = _DEVICE.unpack_from(key)[0], key[_DEVICE.size :]
        if len(handle) == _DEVICE.size:
            return self._walk(node, device, _DEVICE.unpack(handle)[0], flags)
        mount = self._mounts.get(device)
        if mount is None:
            mount = self._find_mount(node, device)
        return syscalls.open_by_handle(mount, handle, flags)

    def _walk(self, node: int, device: int, number: int, flags: int) -> int:
        """Find a file without handle under its last known name."""
        parent, name = self._inodes.place(node)
        fd = os.open(name, TO_NAME, dir_fd=self.path_fd(parent))
        st = os.fstat(fd)
        if (st.st_dev, st.st_ino) != (device, number):
            os.close(fd)
            raise _stale()
        if flags & os.O_PATH:
            return fd
        try:
            return os.open(b"/proc/self/fd/%d" % fd, flags | os.O_CLOEXEC)
        finally:
            os.close(fd)

    def _find_mount(self, node: int, device: int) -> int:
        """After a restore: open a directory of a device below the source, on the way to `node`."""
        chain = [node]
        while chain[-1] != ROOT:
            chain.append(self._inodes.place(chain[-1])[0])
        for step in reversed(chain[:-1]):
            parent, name = self._inodes.place(step)
            st = os.stat(name, dir_fd=self.path_fd(parent), follow_symlinks=False)
            if st.st_dev == device and stat.S_ISDIR(st.st_mode):
                self._note_mount(parent, name, device)
                return self._mounts[device]
        raise _stale()

    # -- inodes without a name, and forgotten ones -----------------------------------------------

    def keep_nameless(self, node: int, lasting: bool) -> None:
        """The inode is about to lose its last name and is in use: keep a descriptor, one that
        outlives this process if `lasting`."""
        if node not in self._nameless and node in self._inodes:
            fd = os.dup(self.path_fd(node))
            if lasting:
                self._record.keep(f"nameless-{node}", fd)
            self._nameless[node] = fd
            if node in self._hand:
                os.close(self._hand.pop(node))

    def give_up_nameless(self, node: int) -> None:
        """The inode is forgotten, or has kept its name after all."""
        if (fd := self._nameless.pop(node, None)) is not None:
            os.close(fd)
            self._record.drop(f"nameless-{node}")

    def forget(self, node: int) -> None:
        """The kernel does not know the inode any more, or a count of it was taken back."""
        self._keys.pop(node, None)
        if node in self._inodes:
            return
        if (fd := self._hand.pop(node, None)) is not None:
            os.close(fd)
        self.give_up_nameless(node)
        if (key := self._alias_keys.pop(node, None)) is not None:
            del self._aliases[key]

    def adopt(self, kept: dict[str, int]) -> None:
        """Take over a predecessor's nameless inodes; those that nobody knows any more go."""
        for name, fd in kept.items():
            prefix, _, number = name.partition("-")
            if prefix != "nameless":
                continue
            if int(number) in self._inodes:
                self._nameless[int(number)] = fd
            else:
                os.close(fd)
                self._record.drop(name)

    def restore(self) -> None:
        """Find out about device indexes and aliases of the inodes that are known."""
        for node in self._inodes:
            if node >= ALIAS:
                key = self._inodes.key(node)
                self._aliases[key], self._alias_keys[node] = node, key
                self._next_alias = max(self._next_alias, node + 1)
            elif node >> DEVICE_SHIFT:
                device = _DEVICE.unpack_from(self._inodes.key(node))[0]
                if device != self.device:
                    self._indexes[device] = node >> DEVICE_SHIFT

    def check(self) -> None:
        """Run the invariants; AssertionError when one does not hold."""
        assert len(self._hand) <= AT_HAND
        assert not self._hand.keys() & self._nameless.keys()
        assert all(self._borrowed[fd] == node for node, fd in self._lent.items())
        assert all(node in self._inodes or node in self._keys for node in self._alias_keys)
        assert {key: node for node, key in self._alias_keys.items()} == self._aliases
