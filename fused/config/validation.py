"""A document's data against a model: what fits, and a problem with its place for what does not."""

import os
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from fused.config.document import Document
from fused.config.nodes import Location
from fused.filesystems import nearest
from fused.filesystems.faults import Fault, faults

_Model = TypeVar("_Model", bound=BaseModel)


def validated(
    document: Document,
    where: Location,
    data: Any,
    model: type[_Model],
    known: dict[str, str] | None = None,
) -> _Model | None:
    """The data at `where` as a `model`; what is wrong is reported and left out.

    None when the model cannot do without what was left out.  `known` are the keys to suggest
    for an unknown one with their descriptions, when there are more than the model's.
    """
    context = {"directory": os.path.dirname(os.path.abspath(document.path))}
    try:
        return model.model_validate(data, context=context)
    except ValidationError as error:
        found = faults(error)
    report(document, where, found, known or described(model))
    wrong = {fault.where[0] for fault in found if fault.where}
    try:
        rest = {key: value for key, value in dict(data).items() if key not in wrong}
        return model.model_validate(rest, context=context)
    except (TypeError, ValueError):
        return None


def report(document: Document, where: Location, found: list[Fault], known: dict[str, str]) -> None:
    """Add each fault of the data at `where` to the document's problems."""
    for fault in found:
        place, top = (*where, *fault.where), len(fault.where) == 1
        key = fault.where[-1] if fault.where else ""
        if fault.kind == "missing":
            wanted = known.get(str(key), "") if top else ""
            document.report_missing(place, f"{fault.what}: {wanted}" if wanted else fault.what)
        elif fault.kind == "unknown":
            hint = nearest(str(key), known) if top else ""
            hint = hint or (f"; there are: {', '.join(sorted(known))}" if top else "")
            document.report(place, fault.what + hint, key=True)
        else:
            document.report(place, fault.what, key=fault.kind == "key")


def described(model: type[BaseModel]) -> dict[str, str]:
    """The keys of `model` and in a few words what each is for."""
    return {name: _brief(field.description or "") for name, field in model.model_fields.items()}


def _brief(description: str) -> str:
    """The first sentence, as it may go on after a colon."""
    first = description.split(". ")[0].rstrip(".")
    return first[:1].lower() + first[1:]
