"""Turning errors into answers of the API service: every error has one status, one kind and one sentence of remedy."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from autovision.errors import (
    AutoVisionError,
    Conflict,
    CorruptObject,
    InvalidInput,
    NotFound,
    StoreUnavailable,
)
from autovision.service.schema import Fault, Left, ServiceProblem
from autovision.serving.problems import Refusal, escaped_trace

logger = logging.getLogger(__name__)

MAX_FAULTS = 10
PROBLEM = "application/problem+json"


class NotJson(Refusal):
    """The body is not JSON; send an object, in UTF-8."""

    kind = "not-json"
    title = "Not JSON"


class WrongMediaType(Refusal):
    """The body is not declared as JSON; send it with `Content-Type: application/json`, and not compressed."""

    status = 415
    kind = "unsupported-media-type"
    title = "Unsupported media type"


class FromElsewhere(Refusal):
    """A web page of another origin sent this request; ask from a program instead."""

    status = 403
    kind = "cross-origin"
    title = "From another origin"


class WrongHost(Refusal):
    """The service answers to this machine's own loopback names alone; ask for http://127.0.0.1, or localhost."""

    status = 403
    kind = "wrong-host"
    title = "Wrong host"


class TooLarge(Refusal):
    """The body is larger than the service takes."""

    status = 413
    kind = "too-large"
    title = "Too large"
    headers = MappingProxyType({"connection": "close"})


class TooSlow(Refusal):
    """The body did not arrive in time; send it again."""

    status = 408
    kind = "slow-body"
    title = "Body too slow"
    headers = MappingProxyType({"connection": "close"})


class KeyReused(Refusal):
    """The idempotency key was used for another request before; draw a new one for each request."""

    status = 422
    kind = "idempotency-key-reused"
    title = "Idempotency key used before"


class UnderWay(Refusal):
    """A request with this idempotency key is under way, or was broken off; look at what came of it, and use a new
    key if it is to be done again."""

    status = 409
    kind = "under-way"
    title = "Under way already"
    retry_after_s = 5


class Busy(Refusal):
    """The service is at work on as much as it can; try again in a moment."""

    status = 503
    kind = "busy"
    title = "Busy"
    retry_after_s = 5


class TooManyStreams(Refusal):
    """This token has as many streams of events open as one may have; close one first."""

    status = 429
    kind = "too-many-streams"
    title = "Too many streams"
    retry_after_s = 10


class NotYours(Refusal):
    """Somebody else submitted this search; ask them, or use a token with the scope admin."""

    status = 403
    kind = "not-yours"
    title = "Somebody else's"


class PriorityTooHigh(Refusal):
    """The token may not submit searches of this priority; ask for less, or for a token with `--max-priority`."""

    status = 403
    kind = "priority"
    title = "Priority too high"


class QuotaUsedUp(Refusal):
    """The token's quota is used up."""

    status = 429
    kind = "quota"
    title = "Quota used up"

    def __init__(self, message: str, left: Left, retry_after_s: int) -> None:
        super().__init__(message)
        self.left = left
        self.retry_after_s = max(1, retry_after_s)


_SHAPES: tuple[tuple[type[Exception], int, str, str, int | None], ...] = (
    (NotFound, 404, "not-found", "Not found", None),
    (Conflict, 409, "conflict", "Somebody else was first", None),
    (InvalidInput, 422, "invalid", "Refused", None),
    (StoreUnavailable, 503, "store-unavailable", "Store unavailable", 5),
    (CorruptObject, 500, "damaged", "A stored object is damaged", None),
    (AutoVisionError, 422, "failed", "It cannot be done", None),
)


def problem_of(error: Exception, request_id: str) -> tuple[ServiceProblem, dict[str, str]]:
    """Problem details for an error, and the headers of its answer. An unexpected one gives nothing away."""
    if isinstance(error, RequestValidationError):
        return _invalid(error.errors(), request_id), {}
    if isinstance(error, HTTPException):
        return _of_http(error, request_id), dict(error.headers or {})
    if isinstance(error, Refusal):
        headers = dict(error.headers)
        if error.retry_after_s is not None:
            headers["retry-after"] = str(error.retry_after_s)
        left = error.left if isinstance(error, QuotaUsedUp) else None
        made = _problem(error.kind, error.title, error.status, str(error), request_id)
        return made.with_(left=left), headers
    for known, status, kind, title, retry_after_s in _SHAPES:
        if isinstance(error, known):
            headers = {} if retry_after_s is None else {"retry-after": str(retry_after_s)}
            return _problem(kind, title, status, str(error), request_id), headers
    logger.error("request %s failed: %s", request_id, escaped_trace(error))
    detail = "The service failed on this request; its log names the cause under the request id. Others go on."
    return _problem("internal", "Internal error", 500, detail, request_id), {}


def rendered(problem: ServiceProblem, headers: dict[str, str]) -> Response:
    """A problem as an answer."""
    body = problem.model_dump_json(exclude_none=True, exclude_defaults=True)
    return Response(body, problem.status, headers, PROBLEM)


def _problem(kind: str, title: str, status: int, detail: str, request_id: str) -> ServiceProblem:
    return ServiceProblem(
        type=f"urn:autovision:problem:{kind}",
        title=title,
        status=status,
        detail=detail,
        request_id=request_id,
    )


def _invalid(errors: Sequence[Any], request_id: str) -> ServiceProblem:
    faults = tuple(
        Fault(where=".".join(map(_printable, each["loc"])) or "request", message=_printable(each["msg"]))
        for each in errors[:MAX_FAULTS]
    )
    said = "; ".join(f"{each.where}: {each.message}" for each in faults[:3])
    more = f" (and {len(errors) - 3} more)" if len(errors) > 3 else ""
    made = _problem("invalid", "Refused", 422, f"{said}{more}; correct it and send it again", request_id)
    return made.with_(faults=faults)


def _printable(text: object) -> str:
    return str(text)[:200].encode(errors="backslashreplace").decode()


def _of_http(error: HTTPException, request_id: str) -> ServiceProblem:
    """404 and 405, which the router raises, and bodies that FastAPI cannot read."""
    kinds = {
        404: ("not-found", "there is no such path; /api/v1/openapi.json lists them"),
        405: ("method-not-allowed", "this path does not take that method; /api/v1/openapi.json lists them"),
    }
    kind, detail = kinds.get(error.status_code, ("bad-request", str(error.detail)))
    title = {404: "Not found", 405: "Method not allowed"}.get(error.status_code, "Bad request")
    return _problem(kind, title, error.status_code, detail, request_id)
