"""What is wrong with data that a model refused, in sentences that speak of YAML, not of Python."""

import json
import re
from typing import Any, NamedTuple

from pydantic import ValidationError

from fused.filesystems import nearest


class Fault(NamedTuple):
    """One thing wrong with the data given to a model."""

    where: tuple[str | int, ...]
    kind: str  # value, key (the last of `where` itself is wrong), unknown (key), missing
    what: str


_EXPECTED = {
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "string_type": "text",
    "bytes_type": "!!binary",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
}


def faults(error: ValidationError) -> list[Fault]:
    """What pydantic found, in sentences that speak of YAML rather than of Python."""
    return [_fault(detail) for detail in error.errors(include_url=False)]


def _fault(detail: Any) -> Fault:
    where, kind, value = detail["loc"], detail["type"], detail["input"]
    if kind in ("key", "value"):  # said by a validator of ours, with its place
        return Fault(where, kind, detail["msg"])
    if kind == "missing":
        return Fault(where, kind, "is missing")
    if kind == "extra_forbidden":
        return Fault(where, "unknown", "no such key")
    if kind == "value_error":
        return Fault(where, "value", str(detail["ctx"]["error"]))
    if kind in _EXPECTED:
        return Fault(where, "value", f"expected {_EXPECTED[kind]}, not {shown(value)}")
    what = re.sub("^Input should be( greater| less)?", _expected, detail["msg"])
    hint = ""
    if kind == "literal_error" and isinstance(value, str):
        hint = nearest(value, re.findall(r"'([^']*)'", detail["ctx"]["expected"]))
    return Fault(where, "value", f"{what[:1].lower()}{what[1:]}, not {shown(value)}{hint}")


def _expected(match: re.Match[str]) -> str:
    return "expected" + (f" a number{match[1]}" if match[1] else "")


def shown(value: Any) -> str:
    """`value` as a sentence may quote it: short and on one line."""
    if isinstance(value, str):
        return repr(value if len(value) <= 60 else value[:59] + "…")
    if isinstance(value, dict | list | bytes):
        return {dict: "a mapping", list: "a list", bytes: "!!binary"}[type(value)]
    return json.dumps(value)
