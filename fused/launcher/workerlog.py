"""The file that a worker under the local launcher logs to."""

import contextlib
import os
from typing import BinaryIO

LONGEST_BYTES = 4 << 20  # a longer one is put aside, once, when a worker starts


class WorkerLog:
    """RUNTIME/NAME/log: the output of the workers, and what the launcher says of them."""

    def __init__(self, path: str) -> None:
        self.path = path

    def open(self) -> BinaryIO:
        """The file, to append to (mode 0640)."""
        return open(self.path, "ab", buffering=0, opener=_private)

    def rotate(self) -> None:
        """Put the file aside when it is too long."""
        with contextlib.suppress(FileNotFoundError):
            if os.stat(self.path).st_size > LONGEST_BYTES:
                os.replace(self.path, self.path + ".1")

    def write(self, text: str) -> None:
        """Append a line; a full disk loses it."""
        with contextlib.suppress(OSError), self.open() as file:
            file.write(f"launcher: {text}\n".encode())


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o640)
