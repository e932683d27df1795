"""The JSON form of a search space, read from anybody: strict, and nothing in it is ever run.

{"format": 1, "name": "Mine", "doc": "…", "parameters": {
    "unfreeze": {"kind": "integer", "low": 0, "high": 2},
    "layer_decay": {"kind": "float", "low": 0.4, "high": 1.0, "when": {"unfreeze": [1, 2]}},
    "pooling": {"kind": "choice", "values": ["avg", "gem"]},
    "batch_size": {"kind": "constant", "value": 64}}}
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import MISSING, fields
from typing import Any

from autovision.errors import InvalidSpace, near
from autovision.space.parameters import KINDS, Choice, Parameter, is_text, shown

FORMAT = 1
"""grows when a reader of the old form would misread the new one"""

MAX_NAME = 100
"""characters of a space's name"""


def parse(data: Any) -> tuple[str, str, dict[str, Parameter]]:
    """Name, description and parameters, as declared: their values and conditions are still to be checked.

    Raises:
        InvalidSpace: the data does not have the form above.
    """
    what = "a search space in JSON"
    if not isinstance(data, dict):
        raise InvalidSpace(f"{what} is an object, not {shown(data)}; write one with Space.to_json()")
    _check_keys(what, data, required=("format", "name", "parameters"), optional=("doc",))
    if type(data["format"]) is not int or data["format"] != FORMAT:
        raise InvalidSpace(
            f"{what} has format {shown(data['format'])}, and this version of autovision reads {FORMAT}; "
            "write it again with this version, or upgrade"
        )
    name, doc, parameters = data["name"], data.get("doc", ""), data["parameters"]
    if not isinstance(name, str) or not name.isidentifier() or len(name) > MAX_NAME:
        raise InvalidSpace(
            f"{what} has name {shown(name)}; use a name such as Mine: letters, digits and '_', "
            f"at most {MAX_NAME} of them"
        )
    if not isinstance(doc, str) or not is_text(doc):
        raise InvalidSpace(f"space {name!r}: doc is {shown(doc)}; use a text or leave it out")
    if not isinstance(parameters, dict) or not parameters:
        raise InvalidSpace(
            f"space {name!r}: parameters is {shown(parameters)}; use an object with at least one parameter"
        )
    return name, doc, {str(key): _parameter(name, key, form) for key, form in parameters.items()}


def _parameter(space: str, name: Any, form: Any) -> Parameter:
    what = f"space {space!r}, parameter {shown(name)} = {shown(form)}"
    kind = form.get("kind") if isinstance(form, dict) else None
    made = KINDS.get(kind) if isinstance(kind, str) else None
    if made is None:
        hint = near(kind, KINDS) if isinstance(kind, str) else ""
        raise InvalidSpace(f"{what}: kind is {shown(kind)}; use an object with kind {', '.join(KINDS)}{hint}")
    arguments = fields(made)
    _check_keys(
        what,
        form,
        required=("kind", *(each.name for each in arguments if each.default is MISSING)),
        optional=tuple(each.name for each in arguments if each.default is not MISSING),
    )
    given = {key: value for key, value in form.items() if key != "kind"}
    if made is not Choice:
        return made(**given)
    values = given.pop("values")
    if not isinstance(values, list):
        raise InvalidSpace(f"{what}: values is {shown(values)}; use an array")
    return Choice(*values, **given)


def _check_keys(what: str, form: dict[Any, Any], *, required: Iterable[str], optional: Iterable[str]) -> None:
    allowed = [*required, *optional]
    for key in form:
        if key not in allowed:
            raise InvalidSpace(
                f"{what} has the unknown key {shown(key)}; "
                f"use only {', '.join(allowed)}{near(str(key), allowed)}"
            )
    if missing := [key for key in required if key not in form]:
        raise InvalidSpace(f"{what} lacks the key {missing[0]!r}; it needs {', '.join(required)}")
