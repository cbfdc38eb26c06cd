"""File systems: where a type's name leads, and its class.

A type is one of ours (`static`, `memory`, `passthrough`), the name of an entry point in the group
`fused.filesystems`, or `package.module:Class` itself; each leads to a subclass of
`llfuse.Operations` that takes its options as keyword arguments.

This module is on a worker's way to its mount, so it imports nothing heavy and llfuse only with
the class.  The options of our own types are declared in `options`; those of other types are
found out in a process of their own (`foreign`, `__main__`), because a manager must not import what
it does not know.
"""

import binascii
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from fused.errors import FusedError

if TYPE_CHECKING:
    import llfuse

GROUP = "fused.filesystems"
BUILT_IN = {
    "static": "fused.filesystems.static:Static",
    "memory": "fused.filesystems.memory:Memory",
    "passthrough": "fused.filesystems.passthrough:Passthrough",
}
_TARGET = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


def resolve(type_name: str) -> str:
    """The `package.module:Class` that `type_name` stands for; FusedError if it stands for none."""
    if type_name in BUILT_IN:
        return BUILT_IN[type_name]
    if ":" in type_name:
        if _TARGET.fullmatch(type_name):
            return type_name
        raise FusedError(f"{type_name!r} is not of the form 'package.module:Class'")
    installed = {name: target for name, target, _ in entry_points()}
    if type_name in installed:
        return installed[type_name]
    known = sorted({*BUILT_IN, *installed})
    hint = nearest(type_name, known) or f"; there are: {', '.join(known)}, package.module:Class"
    raise FusedError(f"no file system type {type_name!r}{hint}")


def load(type_name: str) -> "type[llfuse.Operations]":
    """Import the class; FusedError when it cannot be imported or is no file system.

    It runs the code of whoever wrote the type: for workers and for the child of `foreign` only.
    """
    import importlib

    import llfuse

    module_name, _, class_name = resolve(type_name).partition(":")
    try:
        found: Any = importlib.import_module(module_name)
    except Exception as error:
        reason = (
            str(error) if isinstance(error, ImportError) else f"{type(error).__name__}: {error}"
        )
        raise FusedError(f"cannot import {module_name!r}: {reason}") from error
    for part in class_name.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            hint = nearest(part, dir(found))
            raise FusedError(f"{module_name!r} has no {class_name!r}{hint}") from None
    if not (isinstance(found, type) and issubclass(found, llfuse.Operations)):
        raise FusedError(f"'{module_name}:{class_name}' is not a subclass of llfuse.Operations")
    return found


def entry_points() -> list[tuple[str, str, str]]:
    """(name, target, distribution) of the installed types that are not ours, by name."""
    from importlib import metadata

    found = {
        point.name: (
            point.name,
            f"{point.module}:{point.attr}",
            f"{point.dist.name} {point.dist.version}" if point.dist else "",
        )
        for point in metadata.entry_points(group=GROUP)
        if point.name not in BUILT_IN
    }
    return [found[name] for name in sorted(found)]


def nearest(word: str, known: Iterable[str]) -> str:
    """`, did you mean 'X'?` with the known word that is most like `word`, or nothing."""
    import difflib

    matches = difflib.get_close_matches(word, list(known), n=1)
    return f", did you mean {matches[0]!r}?" if matches else ""


def pack(value: Any) -> Any:
    """`value` in terms of JSON: bytes become `{"!!binary": BASE64}`, tuples and sets lists.

    Anything that JSON has no word for is left to the caller's encoder.
    """
    if isinstance(value, bytes):
        return {"!!binary": binascii.b2a_base64(value, newline=False).decode("ascii")}
    if isinstance(value, dict):
        return {key: pack(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [pack(item) for item in value]
    return value


def arguments(options: dict[str, Any]) -> dict[str, Any]:
    """The keyword arguments for the class, out of `MountSpec.options`: bytes are bytes again."""
    return {name: _unpack(value) for name, value in options.items()}


def _unpack(value: Any) -> Any:
    if isinstance(value, dict):
        if value.keys() == {"!!binary"}:
            return binascii.a2b_base64(value["!!binary"])
        return {key: _unpack(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_unpack(item) for item in value]
    return value
