"""The child of `foreign.ask`: imports a type, describes its options and validates some."""

import inspect
import json
import os
import sys
import types
import typing
import warnings
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic.errors import PydanticInvalidForJsonSchema
from pydantic_core import to_jsonable_python

from fused.errors import FusedError
from fused.filesystems import arguments, load, pack
from fused.filesystems.faults import Fault, faults
from fused.filesystems.options import OptionInfo, describe

_CHECKED = (str, int, float, bool, bytes, list, dict, type(None))


def main() -> None:
    """Answer the question on stdin."""
    answer = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)  # what the type prints is no part of the answer
    warnings.simplefilter("ignore")
    question = [arguments(options) for options in json.load(sys.stdin)]
    with answer:
        json.dump(_answer(sys.argv[1], question), answer, default=to_jsonable_python)


def _answer(type_name: str, question: list[dict[str, Any]]) -> dict[str, Any]:
    try:
        found = load(type_name)
        declared = getattr(found, "Options", None)
        if isinstance(declared, type) and issubclass(declared, BaseModel):
            model, dump = declared, True
        else:
            model, dump = _from_signature(found), False
        return {
            "description": (inspect.cleandoc(found.__doc__ or "").splitlines() or [""])[0],
            "options": _described(model),
            "results": [_validate(model, dump, options) for options in question],
        }
    except FusedError as error:
        return {"error": str(error)}
    except Exception as error:  # the type's own code: what it declares, or how it validates
        what = f"{type(error).__name__}: {error}"
        return {"error": f"{type_name!r} cannot check its options: {what}"}


def _described(model: type[BaseModel]) -> list[OptionInfo]:
    try:
        return describe(model)
    except PydanticInvalidForJsonSchema:  # it holds types that JSON has no word for
        return [
            OptionInfo(name, "", field.is_required(), None, field.description or "")
            for name, field in model.model_fields.items()
        ]


def _validate(model: type[BaseModel], dump: bool, options: dict[str, Any]) -> Any:
    """[options in terms of JSON, faults]; `dump`: as the model has them, else as they came."""
    extra = model.model_config.get("extra")
    known = {field.alias or name for name, field in model.model_fields.items()}
    unknown = [] if extra in ("allow", "forbid") else [key for key in options if key not in known]
    found = [Fault((key,), "unknown", "no such key") for key in unknown]
    try:
        instance = model.model_validate(options)
    except ValidationError as error:
        return pack(options), [*found, *faults(error)]
    return pack(instance.model_dump() if dump else options), found


def _from_signature(found: type) -> type[BaseModel]:
    """A model of the options that the class can be called with."""
    try:
        signature = inspect.signature(found, eval_str=True)
    except Exception:  # names that only a type checker knows
        signature = inspect.signature(found)
    config = ConfigDict(strict=True, extra="forbid")
    fields: dict[str, Any] = {}
    for index, parameter in enumerate(signature.parameters.values()):
        if parameter.kind is parameter.VAR_KEYWORD:
            config["extra"] = "allow"
        elif parameter.kind is parameter.POSITIONAL_ONLY and parameter.default is parameter.empty:
            what = f"{found.__qualname__!r} takes {parameter.name!r} by position only"
            raise FusedError(f"{what}; options are given by name")
        elif parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            default = ... if parameter.default is parameter.empty else parameter.default
            # the alias lets an option have any name, one of BaseModel's own too
            field = Field(default, alias=parameter.name)
            fields[f"option_{index}"] = (_checked(parameter.annotation), field)
    return create_model(found.__name__, __config__=config, **fields)


def _checked(annotation: Any) -> Any:
    """The annotation if YAML's values can be held against it, else Any."""
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal or annotation in _CHECKED or annotation is None:
        return annotation
    if origin in (typing.Union, types.UnionType, list, dict) and Any not in map(_checked, parts):
        return annotation
    return Any


if __name__ == "__main__":
    main()
