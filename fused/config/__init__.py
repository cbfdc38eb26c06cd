"""/etc/fused.yaml: read, checked, and turned into one MountSpec for each mount.

`load` gives the whole configuration or raises ConfigError with everything that is wrong with it,
each a line `FILE:LINE:COLUMN: WHERE: WHAT`, where WHERE is a key's path (`mounts.scratch.size`),
`file` or `syntax`.  Only the text counts: no mountpoint and no source is ever looked at, as it may
be on a mount that hangs.  A source that does not exist is for the worker to find out.

    nodes       YAML text to plain data, stricter than YAML
    document    one file: its data, and where each value stands
    model       the common keys
    schema      the JSON schema, and what can be mounted

The types' own keys are declared in `fused.filesystems.options`; other people's types are asked in
a process of their own, so that `load` may take seconds: the manager calls it in a thread.
"""

import contextlib
import gc
import glob
import os
from collections.abc import Iterator
from typing import Any, NamedTuple

from fused import filesystems, spec
from fused.config.document import Document
from fused.config.model import NAME, Defaults, Included, Main, Mount
from fused.config.nodes import MAX_PROBLEMS, Location
from fused.config.schema import TypeInfo, schema, types
from fused.config.validation import described, report, validated
from fused.errors import ConfigError, FusedError
from fused.filesystems import foreign, nearest
from fused.filesystems.faults import Fault, shown
from fused.filesystems.options import BUILT_IN
from fused.spec import MountSpec, Stamp

__all__ = ["Config", "TypeInfo", "check", "load", "schema", "types"]


class Config(NamedTuple):
    """A configuration without errors."""

    mounts: dict[str, MountSpec]
    stamp: Stamp  # of every file and include directory, taken before they were read


def load(path: str) -> Config:
    """The configuration in `path` and the files that it includes; ConfigError with all faults."""
    with _uncollected():
        return _Loading().config(path)


def check(path: str) -> list[str]:
    """What is wrong with the configuration, a line for each problem; empty when nothing is."""
    try:
        load(path)
    except ConfigError as error:
        return error.problems
    return []


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """No garbage collection meanwhile: 100,000 files of a static mount load in 1 s, else 6 s."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class _Entry:
    """One mount on its way from the file to its spec."""

    def __init__(self, document: Document, name: str, own: dict[str, Any]) -> None:
        self.document = document
        self.name = name
        self.own = own  # as written
        self.common: Mount | None = None  # None when the common keys are not even nearly right
        self.target = ""  # the type's package.module:Class, "" when it has none
        self.options: dict[str, Any] = {}  # as written, then validated

    def at(self, *steps: str | int) -> Location:
        return ("mounts", self.name, *steps)


class _Loading:
    """One run of `load`: what has been read so far.  The documents collect the problems."""

    def __init__(self) -> None:
        self._stamp: Stamp = []
        self._documents: list[Document] = []
        self._defaults: dict[str, Any] = {}  # the valid ones, as written
        self._entries: dict[str, _Entry] = {}

    def config(self, path: str) -> Config:
        main = self._read(path)
        if main.data is not None and (top := validated(main, (), main.data, Main)):
            self._defaults = self._default_keys(main, top.defaults)
            self._add_mounts(main, top.mounts)
            for index, pattern in enumerate(top.include):
                self._include(main, index, pattern)
        for entry in self._entries.values():
            self._common(entry)
        self._options()
        self._overlaps()
        self._stores()
        self._raise()
        return Config(
            {e.name: e.common.spec(e.name, e.options) for e in self._entries.values() if e.common},
            self._stamp,
        )

    def _default_keys(self, main: Document, defaults: dict[str, Any]) -> dict[str, Any]:
        if "mountpoint" in defaults:
            what = "each mount has its own, there is no default"
            main.report(("defaults", "mountpoint"), what, key=True)
        given = {key: value for key, value in defaults.items() if key != "mountpoint"}
        valid = validated(main, ("defaults",), given, Defaults)
        return {key: given[key] for key in valid.model_fields_set} if valid else {}

    def _read(self, path: str) -> Document:
        self._stamp += spec.stamp([os.path.abspath(path)])
        self._documents.append(Document(path))
        return self._documents[-1]

    def _include(self, main: Document, index: int, pattern: str) -> None:
        pattern = os.path.join(os.path.dirname(main.path), pattern)
        paths = [pattern]
        if glob.has_magic(pattern):
            paths = sorted(glob.glob(pattern))
            directory = os.path.dirname(pattern)
            while glob.has_magic(directory):
                directory = os.path.dirname(directory)
            self._stamp += spec.stamp([os.path.abspath(directory)])
        known = {os.path.realpath(document.path) for document in self._documents}
        for path in paths:
            if path == pattern and not os.path.lexists(path):
                main.report(("include", index), f"{path!r} does not exist")
            elif os.path.realpath(path) not in known:
                document = self._read(path)
                if document.data is None:
                    continue
                if top := validated(document, (), document.data, Included):
                    self._add_mounts(document, top.mounts)

    def _add_mounts(self, document: Document, mounts: dict[str, Any]) -> None:
        for name, own in mounts.items():
            where = ("mounts", name)
            if not NAME.fullmatch(name):
                what = (
                    "not a name for a mount: small letters, digits, '_' and '-', a letter first, "
                    "at most 64, as it names the unit fused@NAME.service"
                )
                document.report(where, what, key=True)
            elif name in self._entries:
                first = self._entries[name].document
                what = f"repeated, it stands already in {first.path}:{first.line(where)}"
                document.report(where, what, key=True)
            elif not isinstance(own, dict):
                what = f"expected a mapping with 'type' and 'mountpoint', not {shown(own)}"
                document.report(where, what)
            else:
                self._entries[name] = _Entry(document, name, own)

    def _common(self, entry: _Entry) -> None:
        """Validate the common keys, find the type, and leave the other keys to it."""
        merged = {**self._defaults, **entry.own}
        common = {key: value for key, value in merged.items() if key in Mount.model_fields}
        entry.options = {key: value for key, value in merged.items() if key not in common}
        entry.common = validated(entry.document, entry.at(), common, Mount)
        if "type" not in merged:
            found = [Fault((key,), "unknown", "no such key") for key in entry.options]
            likely = [fault for fault in found if nearest(str(fault.where[0]), Mount.model_fields)]
            report(entry.document, entry.at(), likely, described(Mount))
        if not isinstance(type_name := merged.get("type"), str):
            return
        try:
            entry.target = filesystems.resolve(type_name)
        except FusedError as error:
            self._bad_type(entry, str(error))

    def _bad_type(self, entry: _Entry, what: str) -> None:
        if "type" in entry.own:
            entry.document.report(entry.at("type"), what)
        else:
            self._documents[0].report(("defaults", "type"), f"{what} (for {entry.name!r})")

    def _options(self) -> None:
        """Have the options of each mount validated by its type."""
        models = {filesystems.BUILT_IN[name]: model for name, model in BUILT_IN.items()}
        others: dict[str, list[_Entry]] = {}
        for entry in self._entries.values():
            if model := models.get(entry.target):
                keys = described(model) | described(Mount)
                valid = validated(entry.document, entry.at(), entry.options, model, keys)
                entry.options = valid.model_dump() if valid else entry.options
            elif entry.target:
                others.setdefault(entry.target, []).append(entry)
        for target, entries in others.items():
            try:
                answer = foreign.ask(target, [entry.options for entry in entries])
            except FusedError as error:
                for entry in entries:
                    self._bad_type(entry, str(error))
                continue
            known = {option.name: option.description for option in answer.options}
            for entry, (options, found) in zip(entries, answer.results, strict=True):
                report(entry.document, entry.at(), found, known | described(Mount))
                entry.options = options

    def _overlaps(self) -> None:
        """No mountpoint equal to or below another one, nor below its own source or above it."""
        placed = [(e.common.mountpoint, e) for e in self._entries.values() if e.common]
        placed.sort(key=lambda pair: pair[0].split("/"))
        above: tuple[str, _Entry] | None = None
        for path, entry in placed:
            if above and _below(path, above[0]):
                verb = "is" if path == above[0] else "is below"
                what = f"{path!r} {verb} the mountpoint of {above[1].name!r}"
                entry.document.report(entry.at("mountpoint"), what)
            else:
                above = path, entry
            source = entry.options.get("source")
            if not isinstance(source, str) or not source.startswith("/"):
                continue
            source = os.path.normpath(source)
            if _below(source, path):
                what = f"{source!r} is inside the mount's own mountpoint {path!r}"
                entry.document.report(entry.at("source"), what)
            elif _below(path, source):
                what = f"{path!r} is inside the mount's own source {source!r}"
                entry.document.report(entry.at("mountpoint"), what)

    def _stores(self) -> None:
        """No `persist` in two mounts, nor in anything that is mounted here."""
        owners: dict[str, str] = {}
        for entry in self._entries.values():
            path = entry.options.get("persist")
            if entry.target != filesystems.BUILT_IN["memory"] or not isinstance(path, str):
                continue
            path = os.path.normpath(path)
            if (owner := owners.setdefault(path, entry.name)) != entry.name:
                what = f"{path!r} is 'persist' of {owner!r} already; each mount has its own"
                entry.document.report(entry.at("persist"), what)
            for other in self._entries.values():
                if other.common and _below(path, other.common.mountpoint):
                    what = f"{path!r} is inside the mountpoint of {other.name!r}"
                    entry.document.report(entry.at("persist"), what)
                    break

    def _raise(self) -> None:
        problems = [
            str(problem)
            for document in self._documents
            for problem in sorted(document.problems, key=lambda p: (p.line, p.column))
        ]
        if len(problems) > MAX_PROBLEMS:
            more = f"{self._documents[0].path}:1:1: file: there are more problems than these"
            problems[MAX_PROBLEMS:] = [more]
        if problems:
            raise ConfigError(problems)


def _below(path: str, directory: str) -> bool:
    """Whether `path` is `directory` or inside it, going by the names."""
    return (path + "/").startswith(directory.rstrip("/") + "/")
