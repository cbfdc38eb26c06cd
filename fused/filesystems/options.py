"""What each of our types may be told in the configuration, and in which words of measure.

A model's field descriptions are the documentation: `fusedctl types`, the JSON schema and the man
page are made from them.  The validated values become the keyword arguments of the type's class, as
JSON has them: `MountSpec.options` is the model's dump.  Sizes are bytes, durations seconds.
The tree of `static` arrives as the flat list that `tree` defines.
"""

import math
import os
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    WithJsonSchema,
)

from fused.filesystems import tree
from fused.filesystems.faults import shown

SIZE_UNITS = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
TIME_UNITS = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0}
_NUMBER = r"\d+(?:\.\d+)?"
_SIZE = re.compile(rf"({_NUMBER})\s*([A-Za-z]*)", re.ASCII)
_DURATION = re.compile(rf"({_NUMBER})\s*({'|'.join(TIME_UNITS)})\s*", re.ASCII)
_YEAR = 365 * 24 * 3600.0


def _size(value: Any) -> int:
    hint = ""
    if type(value) is int and 0 <= value < 1 << 63:
        return value
    if isinstance(value, str) and (match := _SIZE.fullmatch(value)):
        number, unit = match.groups()
        if unit in SIZE_UNITS:
            bytes_ = float(number) * SIZE_UNITS[unit]
            if bytes_ < 1 << 63:
                return int(bytes_)
        elif near := [known for known in SIZE_UNITS if unit[:1].upper() == known[0]]:
            hint = f", did you mean '{number}{near[0]}'?"
    raise ValueError(
        f"expected a size such as 512MiB (KiB, MiB, GiB, TiB; a plain number is bytes), "
        f"not {shown(value)}{hint}"
    )


def _duration(value: Any) -> float:
    hint = ""
    seconds = -1.0
    if type(value) in (int, float) and math.isfinite(value):
        seconds = float(value)
    elif isinstance(value, str):
        parts = _DURATION.findall(value)
        if parts and not _DURATION.sub("", value):
            seconds = sum(float(number) * TIME_UNITS[unit] for number, unit in parts)
        elif match := re.fullmatch(rf"({_NUMBER})\s*m\w*", value, re.ASCII):
            hint = f", did you mean '{match[1]}min'?"
    if 0 <= seconds <= _YEAR:
        return seconds
    raise ValueError(
        f"expected a time such as 10s or 1min 30s (ms, s, min, h; a plain number is seconds; "
        f"at most a year), not {shown(value)}{hint}"
    )


def _absolute(value: str) -> str:
    """The path without doubled or trailing slashes; only the text is looked at, never the disk."""
    if not value.startswith("/"):
        raise ValueError(
            f"expected an absolute path, one that starts with '/', not {shown(value)}"
        )
    if ".." in value.split("/"):
        raise ValueError(f"expected a path without '..', not {shown(value)}")
    if "\0" in value or len(os.fsencode(value)) > 4095:
        raise ValueError("expected a path of at most 4095 bytes, none of them NUL")
    return "/" + os.path.normpath(value).lstrip("/")


Size = Annotated[
    int,
    BeforeValidator(_size),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 0},
                {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?\s*[KMGT]iB$"},
            ],
            "format": "size",
        }
    ),
]
Duration = Annotated[
    float,
    BeforeValidator(_duration),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number", "minimum": 0},
                {"type": "string", "pattern": r"^([0-9]+(\.[0-9]+)?\s*(ms|s|min|h)\s*)+$"},
            ],
            "format": "duration",
        }
    ),
]
AbsolutePath = Annotated[
    str,
    AfterValidator(_absolute),
    WithJsonSchema({"type": "string", "pattern": "^/", "format": "path"}),
]


class Options(BaseModel):
    """Base of all models: immutable, nothing unknown, nothing converted on the quiet."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    @classmethod
    def changeable(cls, options: Mapping[str, Any]) -> frozenset[str]:
        """Options that may differ for a successor on the same mount, `options` being its own."""
        return frozenset()


class Static(Options):
    """A tree of fixed files that nobody can change."""

    files: Annotated[
        list[tree.Entry],
        PlainValidator(tree.flatten),
        WithJsonSchema({"type": "object", "format": "tree"}),
    ] = Field(
        description="The tree: a name leads to a file's content (text or !!binary) or to a "
        "directory. Attributes begin with a slash, as no name can: /content, /from (a file; "
        "relative to this one), /symlink, /mode."
    )


class Memory(Options):
    """Files in memory, gone when unmounted, or kept in one place on disk."""

    size: Annotated[Size, Field(gt=0)] | None = Field(
        None, description="Bytes that content may take, ENOSPC beyond. Not given: half of RAM."
    )
    inodes: Annotated[int, Field(gt=0)] | None = Field(
        None,
        description="How many files and directories there may be. Not given: as memory allows; "
        "with persist one for 16 KiB of size.",
    )
    persist: AbsolutePath | None = Field(
        None,
        description="A directory, made when missing, for a file in which all is kept over "
        "unmounts and reboots; what was fsynced survives a power cut. It takes size and some "
        "more of the disk, at once. Not given: all is gone when unmounted.",
    )

    @classmethod
    def changeable(cls, options: Mapping[str, Any]) -> frozenset[str]:
        """A persistent store changes its size while nobody uses it."""
        return frozenset() if options.get("persist") else frozenset({"size", "inodes"})


class Passthrough(Options):
    """A directory of another file system, as it is."""

    source: AbsolutePath = Field(description="The directory to show.")
    cache: Literal["shared", "exclusive"] = Field(
        "shared",
        description="shared: others change the source too. exclusive: only this mount does, "
        "so the kernel may keep more and write later.",
    )


BUILT_IN: dict[str, type[Options]] = {
    "static": Static,
    "memory": Memory,
    "passthrough": Passthrough,
}


class OptionInfo(NamedTuple):
    """One option of a type, as `fusedctl types` shows it."""

    name: str
    type: str  # size, duration, path, tree, text, 'a' | 'b', ...; "" for anything
    required: bool
    default: Any  # in terms of JSON
    description: str


def describe(model: type[BaseModel]) -> list[OptionInfo]:
    """The options that a model accepts, in its order."""
    schema = model.model_json_schema()
    required = schema.get("required", [])
    return [
        OptionInfo(
            name,
            _words(option),
            name in required,
            option.get("default"),
            " ".join(option.get("description", "").split()),
        )
        for name, option in schema.get("properties", {}).items()
    ]


_WORDS = {
    "string": "text",
    "integer": "number",
    "number": "number",
    "boolean": "true | false",
    "array": "list",
    "object": "mapping",
}


def _words(schema: dict[str, Any]) -> str:
    """The type that a JSON schema describes, in as few words as possible."""
    if "enum" in schema:
        return " | ".join(str(value) for value in schema["enum"])
    if "const" in schema:
        return str(schema["const"])
    if "format" in schema:
        return str(schema["format"])
    if "anyOf" in schema:
        choices = [choice for choice in schema["anyOf"] if choice.get("type") != "null"]
        return " | ".join(dict.fromkeys(filter(None, map(_words, choices))))
    return _WORDS.get(str(schema.get("type", "")), "")
