"""The tree of files that a `static` mount is configured with.

    files:
      motd: "hello\\n"                        # a name and the file's content
      logo.png: !!binary iVBORw0KGgo=        # bytes
      bin:                                   # a mapping is a directory
        hello: {/content: "#!/bin/sh\\necho hello\\n", /mode: 0555}
        hi: {/symlink: hello}
      licence: {/from: licence.txt}          # content from a file; relative to the config file
      private: {/mode: 0700, key: "secret\\n"}  # a directory with a mode

A key that begins with a slash is an attribute: no name can hold one, so nothing is ambiguous.

`flatten` makes a list of entries `[path, kind, mode, payload]` of it, parents before children:

    path     relative, without a leading slash; "" is the root, always the first entry;
             os.fsencode gives the bytes
    kind     directory (payload ""), text (payload is the content, to be encoded as UTF-8),
             base64 (payload is the content so encoded), from (payload is the absolute path of the
             file that holds the content; it may not exist), symlink (payload is the target;
             os.fsencode)
    mode     permission bits, 0o777 for a symlink
"""

import base64
import os
import re
from typing import Any

from pydantic import ValidationError, ValidationInfo
from pydantic_core import InitErrorDetails, PydanticCustomError

from fused.filesystems import nearest
from fused.filesystems.faults import shown

Entry = list[Any]  # [path, kind, mode, payload]
KINDS = ("/content", "/from", "/symlink")
ATTRIBUTES = (*KINDS, "/mode")
DIRECTORY_MODE = 0o555
FILE_MODE = 0o444
_OCTAL = re.compile("0o?[0-7]{1,3}")
SCHEMA = {
    "directory": {
        "type": "object",
        "properties": {"/mode": {"$ref": "#/definitions/mode"}},
        "patternProperties": {"^[^/]+$": {"$ref": "#/definitions/node"}},
        "additionalProperties": False,
    },
    "node": {
        "anyOf": [
            {"type": "string"},
            {"$ref": "#/definitions/directory"},
            *(
                {
                    "type": "object",
                    "properties": {
                        kind: {"type": "string"},
                        **(
                            {} if kind == "/symlink" else {"/mode": {"$ref": "#/definitions/mode"}}
                        ),
                    },
                    "required": [kind],
                    "additionalProperties": False,
                }
                for kind in KINDS
            ),
        ]
    },
    "mode": {
        "anyOf": [
            {"type": "integer", "minimum": 0, "maximum": 0o777},
            {"type": "string", "pattern": "^0o?[0-7]{1,3}$"},
        ],
        "description": "Permission bits in octal, such as 0644.",
    },
}


def flatten(files: Any, info: ValidationInfo) -> list[Entry]:
    """The entries of the tree; a pydantic ValidationError with every fault and its place.

    `info.context["directory"]` is what a relative `/from` is relative to.
    """
    walk = _Walk((info.context or {}).get("directory"))
    if isinstance(files, dict):
        walk.directory("", files, ())
    else:
        walk.fault((), f"expected a mapping of names to contents, not {shown(files)}")
    if walk.faults:
        raise ValidationError.from_exception_data("files", walk.faults)
    return walk.entries


class _Walk:
    """One pass over a tree: the entries so far, and what is wrong with it."""

    def __init__(self, beside: str | None) -> None:
        self.entries: list[Entry] = []
        self.faults: list[InitErrorDetails] = []
        self._beside = beside

    def fault(self, where: tuple[str, ...], what: str, kind: str = "value") -> None:
        said = PydanticCustomError(kind, "{what}", {"what": what})
        self.faults.append(InitErrorDetails(type=said, loc=where, input=None))

    def directory(self, path: str, node: dict[str, Any], where: tuple[str, ...]) -> None:
        self.entries.append([path, "directory", self._mode(node, DIRECTORY_MODE, where), ""])
        prefix = path + "/" if path else ""
        for name, value in node.items():
            if name == "/mode":
                continue
            if wrong := _wrong_name(name):
                self.fault((*where, name), wrong, "key")
            elif type(value) is str:
                self.entries.append([prefix + name, "text", FILE_MODE, value])
            else:
                self._node(prefix + name, value, (*where, name))

    def _node(self, path: str, value: Any, where: tuple[str, ...]) -> None:
        if isinstance(value, dict) and not value.keys().isdisjoint(KINDS):
            self._special(path, value, where)
        elif isinstance(value, dict):
            self.directory(path, value, where)
        else:
            self._content(path, value, FILE_MODE, where)

    def _special(self, path: str, node: dict[str, Any], where: tuple[str, ...]) -> None:
        """A file or symlink with attributes: exactly one of KINDS, and nothing but attributes."""
        kind = next(key for key in node if key in KINDS)
        allowed = (kind,) if kind == "/symlink" else (kind, "/mode")
        for key in node:
            if key not in allowed:
                self.fault((*where, key), f"cannot stand beside {kind!r}", "key")
        value, there = node[kind], (*where, kind)
        if kind == "/content":
            self._content(path, value, self._mode(node, FILE_MODE, where), there)
        elif not isinstance(value, str) or not value or "\0" in value:
            self.fault(there, f"expected a path, not {shown(value)}")
        elif kind == "/symlink":
            self.entries.append([path, "symlink", 0o777, value])
        elif self._beside is None and not value.startswith("/"):
            self.fault(there, f"expected an absolute path, not {shown(value)}")
        else:
            source = os.path.normpath(os.path.join(self._beside or "/", value))
            self.entries.append([path, "from", self._mode(node, FILE_MODE, where), source])

    def _content(self, path: str, value: Any, mode: int, where: tuple[str, ...]) -> None:
        if isinstance(value, str):
            self.entries.append([path, "text", mode, value])
        elif isinstance(value, bytes):
            self.entries.append([path, "base64", mode, base64.b64encode(value).decode("ascii")])
        else:
            expected = "expected the content as text or !!binary, or a mapping for a directory"
            hint = "; quote it" if not isinstance(value, list) else ""
            self.fault(where, f"{expected}, not {shown(value)}{hint}")

    def _mode(self, node: dict[str, Any], default: int, where: tuple[str, ...]) -> int:
        if "/mode" not in node:
            return default
        mode = node["/mode"]
        if isinstance(mode, str) and _OCTAL.fullmatch(mode):
            mode = Octal(mode.removeprefix("0o"), 8)
        if isinstance(mode, Octal) and 0 <= mode <= 0o777:
            return int(mode)
        said = f"expected permissions in octal, such as 0644, not {shown(mode)}"
        self.fault((*where, "/mode"), said)
        return default


class Octal(int):
    """A whole number that was written in octal, with a leading zero."""


def _wrong_name(name: str) -> str:
    """What is wrong with `name` as the name of a file, or nothing."""
    if name.startswith("/"):
        hint = nearest(name, ATTRIBUTES) or f"; there are: {', '.join(ATTRIBUTES)}"
        return f"no such attribute{hint}"
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        return "not a file name: it must not be empty, '.' or '..', and hold neither '/' nor NUL"
    if len(name) > 63 and len(os.fsencode(name)) > 255:
        return "not a file name: longer than 255 bytes"
    return ""
