"""A configuration file as plain data that knows where each of its values stands."""

import os
import stat
from typing import Any, NamedTuple

from fused.config.nodes import (
    MAX_PROBLEMS,
    Location,
    Node,
    Unusable,
    child,
    compose,
    dotted,
    plain,
    position,
)

MAX_BYTES = 64 << 20


class Problem(NamedTuple):
    """One thing wrong with the configuration; `str` gives the line that the user sees."""

    file: str
    line: int
    column: int
    where: str  # a key's path such as mounts.scratch.size, or `file`, or `syntax`
    what: str

    def __str__(self) -> str:
        line = f"{self.file}:{self.line}:{self.column}: {self.where}: {self.what}"
        return line.encode("utf-8", "backslashreplace").decode().replace("\n", "\\n")


class Document:
    """One file, read.  What is wrong with it is in `problems`; then `data` lacks those parts.

    Never raises for anything that a file may hold, nor for one that cannot be read: then `data`
    is None and `problems` says why.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.problems: list[Problem] = []
        self.data: Any = None
        self._root: Node | None = None
        try:
            self._root = compose(_text(path))
            self.data = plain(self._root, self.add)
        except Unusable as broken:
            self.problems.append(Problem(path, *broken.args))

    def report(self, location: Location, what: str, *, key: bool = False) -> None:
        """Add a problem with the value at `location`, or with its key.

        Steps of `location` that the file does not hold are left out (pydantic names branches of
        unions there), but one that is missing altogether is named at the end.
        """
        if len(self.problems) <= MAX_PROBLEMS:  # finding the place takes time
            mark, found = self._find(location, key)
            self.add(mark, found, what)

    def report_missing(self, location: Location, what: str) -> None:
        """Add that the last key of `location` is missing, unless it is there but was refused."""
        mark, found = self._find(location, key=False)
        if found != location:
            mark, _ = self._find(location[:-1], key=True)
            self.add(mark, location, what)

    def add(self, mark: Any, location: Location, what: str) -> None:
        """Add a problem at a mark of yaml (None: at the top)."""
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        self.problems.append(Problem(self.path, line, column, dotted(location), what))

    def line(self, location: Location) -> int:
        """The line in which the key of `location` stands."""
        mark, _ = self._find(location, key=True)
        return int(mark.line) + 1

    def _find(self, location: Location, key: bool) -> tuple[Any, Location]:
        """The mark of what stands at `location` and as much of it as there is."""
        node, found = self._root, list[str | int]()
        mark = node.start_mark if node else None
        for step in location:
            key_node, value_node = child(node, step)
            if value_node is not None:
                mark = (key_node if key else value_node).start_mark
                node = value_node
                found.append(step)
        return mark, tuple(found)


def _text(path: str) -> str:
    try:
        with open(
            path, "rb", opener=lambda path, flags: os.open(path, flags | os.O_NONBLOCK)
        ) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise Unusable(1, 1, "file", "is not a regular file")
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        hint = "create it, at least with the line 'mounts: {}', or name another one with --config"
        raise Unusable(1, 1, "file", f"does not exist; {hint}") from None
    except IsADirectoryError:
        raise Unusable(1, 1, "file", "is a directory; name a file in it") from None
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise Unusable(1, 1, "file", f"cannot be read: {why}") from None
    if len(content) > MAX_BYTES:
        raise Unusable(1, 1, "file", f"is larger than {MAX_BYTES >> 20} MiB")
    try:
        return content.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        before = content[: error.start].decode("utf-8")
        what = f"byte 0x{content[error.start]:02x} is not UTF-8; save the file as UTF-8"
        raise Unusable(*position(before), "syntax", what) from None
