"""From YAML text to nodes and from nodes to plain data.  The only module that imports yaml.

Stricter than YAML: keys are text and stand once, only the core tags and !!binary mean something,
aliases may not blow up, nesting has a limit.
"""

import os
import re
from collections.abc import Callable
from typing import Any

import yaml

from fused.filesystems.faults import shown
from fused.filesystems.tree import Octal

Location = tuple[str | int, ...]  # keys and indices from the top of the document
Node = yaml.Node
Report = Callable[[Any, Location, str], None]  # a mark of yaml, where, what

MAX_DEPTH = 100
MAX_VALUES = 1_000_000  # with aliases counted as often as they are used
MAX_PROBLEMS = 100
_CORE = "tag:yaml.org,2002:"
_PLAIN_KEY = re.compile(r"/?[\w-]+")


class Unusable(Exception):
    """The file cannot be read any further: line, column, where, what."""


def dotted(location: Location) -> str:
    """`mounts.scratch.mount_options[1]`; keys that are no plain words are quoted."""
    text = ""
    for step in location:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            text += "." + (step if _PLAIN_KEY.fullmatch(step) else shown(step))
    return text.removeprefix(".") or "file"


def position(before: str) -> tuple[int, int]:
    """Line and column of the character after `before`."""
    return before.count("\n") + 1, len(before) - before.rfind("\n")


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Composes nodes only; refuses nesting that would overflow the composer's stack."""

    _depth = 0

    def descend_resolver(self, current_node: Node | None, current_index: Any) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH and current_node:
            mark = current_node.start_mark
            what = f"nested deeper than {MAX_DEPTH} levels"
            raise Unusable(mark.line + 1, mark.column + 1, "syntax", what)

    def ascend_resolver(self) -> None:
        self._depth -= 1


def compose(text: str) -> Node:
    if found := yaml.reader.Reader.NON_PRINTABLE.search(text):
        what = f"character {found[0]!r} is not allowed; write it as an escape in double quotes"
        raise Unusable(*position(text[: found.start()]), "syntax", what)
    try:
        loader = _Loader(text)
        try:
            root = loader.get_single_node()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        raise Unusable(*_syntax(error, text)) from None
    except yaml.YAMLError as error:
        raise Unusable(1, 1, "syntax", " ".join(str(error).split())) from None
    if root is None or root.tag == _CORE + "null":
        raise Unusable(1, 1, "file", "is empty; a configuration without mounts is 'mounts: {}'")
    return root  # type: ignore[no-any-return]


def _syntax(error: yaml.MarkedYAMLError, text: str) -> tuple[int, int, str, str]:
    mark: Any = error.problem_mark or error.context_mark
    line = (text.splitlines() or [""])[mark.line : mark.line + 1] or [""]
    indent = line[0][: len(line[0]) - len(line[0].lstrip())]
    if "\t" in indent or line[0][mark.column : mark.column + 1] == "\t":
        column = (indent if "\t" in indent else line[0]).index("\t") + 1
        return mark.line + 1, column, "syntax", "a tab; YAML is indented with spaces"
    what = error.problem or "not YAML"
    if error.context and error.context_mark and error.context_mark.line != mark.line:
        what += f" ({error.context} that begins in line {error.context_mark.line + 1})"
    elif error.context:
        what += f" ({error.context})"
    return mark.line + 1, mark.column + 1, "syntax", what


_INVALID = object()  # in place of a value that was reported


def plain(root: Node, report: Report) -> Any:
    """What the nodes stand for, without the parts that had to be reported; None if all had."""
    built = _Builder(report).value(root)
    return None if built is _INVALID else built


class _Builder:
    """Makes plain data of nodes and reports what is not plain.

    A node that is used through several aliases is built once, but counted as often as it is used.
    """

    def __init__(self, report: Report) -> None:
        self._report = report
        self._refused = 0
        self._trail: list[str | int] = []
        self._built: dict[int, tuple[Any, int, int]] = {}  # value, count and height
        self._open: set[int] = set()
        self._count = 0
        self._deepest = 0  # level reached, through aliases too

    def value(self, node: Node) -> Any:
        if isinstance(node, yaml.ScalarNode):
            self._add(node, 1)
            return node.value if node.tag == _CORE + "str" else self._scalar(node)
        if id(node) in self._built:
            built, count, height = self._built[id(node)]
            self._add(node, count, height)
            return built
        if id(node) in self._open:
            return self._refuse(node, "an alias to something that it is a part of")
        before, deepest, level = self._count, self._deepest, len(self._open)
        self._open.add(id(node))
        self._deepest = level
        self._add(node, 1)
        built = self._collection(node)
        self._open.remove(id(node))
        self._built[id(node)] = built, self._count - before, self._deepest - level
        self._deepest = max(deepest, self._deepest)
        return built

    def _add(self, node: Node, count: int, height: int = 0) -> None:
        """Account for `count` values of which the deepest is `height` levels below this one."""
        self._count += count
        self._deepest = max(self._deepest, len(self._open) + height)
        if self._count > MAX_VALUES:
            what = f"more than {MAX_VALUES} values, counting aliases as often as they are used"
        elif self._deepest > MAX_DEPTH:
            what = f"nested deeper than {MAX_DEPTH} levels"
        else:
            return
        mark = node.start_mark
        raise Unusable(mark.line + 1, mark.column + 1, dotted(tuple(self._trail)), what)

    def _refuse(self, node: Node, what: str) -> object:
        self._report(node.start_mark, tuple(self._trail), what)
        self._refused += 1
        if self._refused > MAX_PROBLEMS:
            raise Unusable(node.start_mark.line + 1, 1, "file", "too many problems")
        return _INVALID

    def _collection(self, node: Node) -> Any:
        if isinstance(node, yaml.MappingNode) and node.tag == _CORE + "map":
            return self._mapping(node)
        if not (isinstance(node, yaml.SequenceNode) and node.tag == _CORE + "seq"):
            return self._foreign(node)
        items = []
        for index, item in enumerate(node.value):
            self._trail.append(index)
            items.append(self.value(item))
            self._trail.pop()
        return _INVALID if _INVALID in items else items

    def _mapping(self, node: yaml.MappingNode) -> dict[str, Any]:
        data: dict[str, Any] = {}
        lines: dict[str, int] = {}
        for key_node, value_node in node.value:
            key = key_text(key_node)
            if key is None:
                self._refuse(key_node, _wrong_key(key_node))
                continue
            self._trail.append(key)
            if key in lines:
                self._refuse(key_node, f"repeated key, it stands already in line {lines[key]}")
            else:
                lines[key] = key_node.start_mark.line + 1
                if (value := self.value(value_node)) is not _INVALID:
                    data[key] = value
            self._trail.pop()
        return data

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        make = _SCALARS.get(node.tag.removeprefix(_CORE))
        if make is None:
            return self._foreign(node)
        try:
            return make(node)
        except (ValueError, IndexError, KeyError, yaml.YAMLError):
            tag = node.tag.replace(_CORE, "!!")
            return self._refuse(node, f"{shown(node.value)} is not a valid {tag}")

    def _foreign(self, node: Node) -> object:
        tag = node.tag.replace(_CORE, "!!")
        what = "there are text, numbers, true, false, null, lists, mappings and !!binary"
        return self._refuse(node, f"the tag {shown(tag)} is not allowed; {what}")


def child(node: Node | None, step: str | int) -> tuple[Any, Any]:
    """The nodes of a mapping's key and value, or twice that of a list's item; else None twice."""
    if isinstance(node, yaml.MappingNode):
        for key_node, value_node in node.value:
            if key_text(key_node) == step:
                return key_node, value_node
    elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        return node.value[step], node.value[step]
    return None, None


def key_text(node: Node) -> str | None:
    """The key as text, a !!binary one as os.fsdecode gives it; None when it is neither."""
    if not isinstance(node, yaml.ScalarNode):
        return None
    if node.tag in (_CORE + "str", _CORE + "value", _CORE + "timestamp"):
        return str(node.value)
    if node.tag == _CORE + "binary":
        try:
            return os.fsdecode(_constructor.construct_yaml_binary(node))
        except yaml.YAMLError:
            return None
    return None


def _wrong_key(node: Node) -> str:
    if node.tag == _CORE + "merge":
        return "merge keys ('<<') are not supported; use 'defaults'"
    if isinstance(node, yaml.ScalarNode) and node.value:
        return f"the key {shown(node.value)} is not text; quote it"
    return "a key that is not text"


def _integer(node: yaml.ScalarNode) -> int:
    number = int(_constructor.construct_yaml_int(node))
    if not -(1 << 63) <= number < 1 << 64:
        raise ValueError
    octal = re.match(r"[-+]?0[0-7_]", node.value)
    return Octal(number) if octal else number


_constructor = yaml.constructor.SafeConstructor()
_SCALARS: dict[str, Callable[[Any], Any]] = {
    "null": lambda node: None,
    "bool": _constructor.construct_yaml_bool,
    "int": _integer,
    "float": _constructor.construct_yaml_float,
    "binary": _constructor.construct_yaml_binary,
    "timestamp": lambda node: node.value,
    "value": lambda node: node.value,
}
