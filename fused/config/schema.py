"""What a configuration may hold, for editors (JSON schema) and for `fusedctl types`.

Everything here is read off the models.
"""

from typing import Any, NamedTuple

from pydantic import BaseModel

from fused import filesystems
from fused.config.model import NAME, Defaults, Main, Mount
from fused.errors import FusedError
from fused.filesystems import foreign, tree
from fused.filesystems.options import BUILT_IN, OptionInfo, describe


class TypeInfo(NamedTuple):
    """A type of file system that a mount can be of."""

    name: str
    origin: str  # `built-in`, or the distribution that it came with
    description: str  # for one that cannot be used: why not
    options: list[OptionInfo]


def types() -> list[TypeInfo]:
    """Our own types, then the installed ones.  These are imported, each in its own process."""
    found = [
        TypeInfo(name, "built-in", _first(model.__doc__), describe(model))
        for name, model in BUILT_IN.items()
    ]
    for name, target, origin in filesystems.entry_points():
        try:
            answer = foreign.ask(target, [])
        except FusedError as error:
            found.append(TypeInfo(name, origin, str(error), []))
        else:
            found.append(TypeInfo(name, origin, answer.description, answer.options))
    return found


def schema() -> dict[str, Any]:
    """The JSON schema (draft 7, which editors know best) of a configuration file."""
    common = _properties(Mount)
    top = _properties(Main)
    top["defaults"] |= {
        "type": ["object", "null"],
        "properties": _properties(Defaults),
        "additionalProperties": False,
    }
    top["mounts"] |= {
        "type": ["object", "null"],
        "propertyNames": {"pattern": f"^{NAME.pattern}$"},
        "additionalProperties": {"$ref": "#/definitions/mount"},
    }
    top["include"] |= {"type": ["string", "array"]}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "fused.yaml",
        "description": "What fused mounts.",
        "type": "object",
        "properties": top,
        "additionalProperties": False,
        "definitions": {
            "mount": {
                "type": "object",
                "properties": common,
                "required": ["mountpoint"],
                "allOf": [_of_type(name, model, common) for name, model in BUILT_IN.items()],
            },
            **tree.SCHEMA,
        },
    }


def _of_type(name: str, model: type[BaseModel], common: dict[str, Any]) -> dict[str, Any]:
    """If the mount is of this type, these keys and no others."""
    required = [name for name, field in model.model_fields.items() if field.is_required()]
    return {
        "if": {"properties": {"type": {"const": name}}, "required": ["type"]},
        "then": {
            "properties": dict.fromkeys(common, True) | _properties(model),
            "required": required,
            "additionalProperties": False,
        },
    }


def _properties(model: type[BaseModel]) -> dict[str, Any]:
    """The properties of the model's JSON schema without pydantic's titles."""
    found: dict[str, Any] = model.model_json_schema(mode="validation")["properties"]
    for option in found.values():
        del option["title"]
        if option.get("format") == "tree":
            option.update({"$ref": "#/definitions/directory"})
    return found


def _first(docstring: str | None) -> str:
    return (docstring or "").splitlines()[0].rstrip(".")
