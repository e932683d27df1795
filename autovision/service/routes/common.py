"""What routes have in common: paths, answers, and how answers are documented."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Path
from pydantic import BaseModel
from starlette.responses import Response

from autovision.service.problems import PROBLEM

_PATTERN = r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,126}[A-Za-z0-9])?$"
"""coarser than `keys.check_name` and `keys.check_id`, which every handler asks as well"""

Name = Annotated[str, Path(max_length=64, pattern=_PATTERN, examples=["pets"])]
SearchId = Annotated[str, Path(max_length=128, pattern=_PATTERN, examples=["pets-1a2b3c4d5e6f"])]
ModelId = Annotated[str, Path(max_length=128, pattern=_PATTERN, examples=["pets-m-1234567890"])]

_MEANINGS = {
    400: "the request cannot be read",
    401: "no valid token",
    403: "the token lacks a scope",
    404: "there is nothing of that name",
    408: "the body did not arrive in time",
    409: "somebody else changed it first, or is at it",
    413: "the body is too large",
    415: "the body is not declared as JSON",
    422: "the request was refused; the detail names the fault, the value and the remedy",
    429: "a quota is used up; Retry-After says when to try again, and `left` what is left",
    503: "the store or the service cannot answer now; Retry-After says when to try again",
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The documentation of errors, those that any route may give among them."""
    return {
        status: {
            "description": _MEANINGS[status],
            "content": {PROBLEM: {"schema": {"$ref": "#/components/schemas/ServiceProblem"}}},
        }
        for status in sorted({400, 401, 403, 408, 413, 415, 422, 503, *statuses})
    }


def answer(record: BaseModel, status: int = 200, **headers: str) -> Response:
    """A record as an answer."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(record.model_dump_json(), status, named, "application/json")
