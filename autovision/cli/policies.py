"""Policies are changed option by option: what is not given stays, and `none` takes a limit away."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from autovision.records.base import Record

R = TypeVar("R", bound="Record")

NONE = "none"


def changed(policy: R, given: Mapping[str, Any]) -> R:
    """A policy with what options say; None: an option that is not given, the text `none`: no limit.

    Raises `InvalidInput` that names the option, what is wrong with it and what was given.
    """
    from pydantic import ValidationError

    from autovision.errors import InvalidInput

    changes = {name: None if value == NONE else value for name, value in given.items() if value is not None}
    try:
        return type(policy).model_validate({**policy.model_dump(), **changes})
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        where = "--" + "-".join(str(part) for part in fault["loc"][:1]).replace("_", "-")
        got = f" (got {fault['input']!r})" if fault["loc"] else ""
        message = fault["msg"].removeprefix("Value error, ")
        raise InvalidInput(f"{where + ': ' if fault['loc'] else ''}{message}{got}") from None
