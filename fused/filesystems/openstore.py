"""Opening the store of a persistent memory mount: it is made when missing, and grows by copying.

Growing means a new image, to which all is copied, and which then takes the place of the old one:
at any time there is one of the two under the store's name, complete.  It takes room for both.
(ext4 in use can grow, too, `Store.apply`; that is for mounts that are not made afresh.)
"""

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import NamedTuple

from fused import notify
from fused.errors import WorkerFailed
from fused.filesystems import image as images
from fused.filesystems import syscalls
from fused.filesystems.image import Image, Limits
from fused.filesystems.store import Store, mount

log = logging.getLogger(__name__)


def root_of(mounted: int) -> int:
    """A descriptor, to read, of the root directory of a detached mount."""
    return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=mounted)


@contextmanager
def more_time() -> Iterator[None]:
    """In the block the supervisor does not lose patience, as it waits for a disk."""
    done = threading.Event()

    def ask() -> None:
        while not done.wait(2.0):
            notify.notify("EXTEND_TIMEOUT_USEC=10000000")

    threading.Thread(target=ask, daemon=True).start()
    try:
        yield
    finally:
        done.set()


class OpenStore(NamedTuple):
    """A mounted store with the descriptors it is made of: the mount, its root, the limits."""

    image: Image
    mounted: int
    root: int
    kept: int
    store: Store

    @classmethod
    def open(cls, directory: str, wanted: Limits) -> "OpenStore":
        """The store in `directory` with these limits, or as near to them as can be: then the log
        says why.  WorkerFailed, with the way out."""
        image = images.open_image(directory)
        if not image.finished:
            return cls._made(image, wanted, None)
        with suppress(FileNotFoundError):  # what a power cut has left of growing
            os.unlink(os.path.join(os.path.dirname(image.path), images.UNFINISHED))
        opened = cls._mounted(image)
        try:
            if not opened.store.fits(wanted):
                larger = images.open_image(directory, (images.UNFINISHED,))
                with more_time():
                    grown = cls._made(larger, wanted, opened.root)
                opened.close()
                return grown
        except WorkerFailed as error:
            log.error("the store cannot grow: %s", error)
        opened.store.apply(wanted)
        return opened

    @classmethod
    def _made(cls, image: Image, wanted: Limits, source: int | None) -> "OpenStore":
        """A new store in an empty image, with what is below `source` copied to it."""
        with ExitStack() as undo:
            undo.callback(os.unlink, image.path)
            try:
                images.make(image, wanted)
            except BaseException:
                image.close()
                raise
            opened = cls._mounted(image)
            undo.callback(opened.close)
            os.rmdir("lost+found", dir_fd=opened.root)
            opened.store.apply(wanted)
            if source is not None:
                _copy(source, opened.root)
            syscalls.syncfs(opened.root)
            opened = opened._replace(image=images.finish(image))
            undo.pop_all()
        return opened

    @classmethod
    def _mounted(cls, image: Image) -> "OpenStore":
        with ExitStack() as undo:
            undo.callback(image.close)
            mounted = mount(image)
            undo.callback(os.close, mounted)
            root = root_of(mounted)
            undo.callback(os.close, root)
            kept = os.memfd_create("limits")
            undo.callback(os.close, kept)
            opened = cls(image, mounted, root, kept, Store(root, image, kept))
            undo.pop_all()
        return opened

    def close(self) -> None:
        """Unmount it."""
        for fd in (self.kept, self.root, self.mounted, self.image.fd):
            os.close(fd)


def _copy(source: int, target: int) -> None:
    """Copy all that is in one directory, as it is, to another one."""
    import subprocess

    command = ["cp", "--archive", "--sparse=always"]
    done = subprocess.run(
        [*command, f"/proc/self/fd/{source}/.", f"/proc/self/fd/{target}/"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, pass_fds=(source, target),
    )  # fmt: skip
    if done.returncode:
        raise WorkerFailed(f"its content cannot be copied: {done.stderr.splitlines()[0]}")
