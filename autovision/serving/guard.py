"""What all routes have in common: who may, what a request may hold, and how an error becomes an answer."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from autovision.records.base import Record, now
from autovision.records.tokens import Scope
from autovision.serving.auth import TokenBook
from autovision.serving.engine import Engine
from autovision.serving.limits import Gate, Visit
from autovision.serving.problems import escaped_trace, headers_of, problem_of, shape_of
from autovision.serving.schema import Problem
from autovision.store import keys

logger = logging.getLogger(__name__)

Handler = Callable[[Request, Visit], Awaitable[Response]]
Endpoint = Callable[[Request], Awaitable[Response]]
Render = Callable[[Problem, dict[str, str]], Response]
"""an error and its headers as the answer of a protocol"""


class Guard:
    """Wraps handlers into endpoints.

    Args:
        book: the tokens; None: everyone may do everything.
    """

    def __init__(self, engine: Engine, gate: Gate, book: TokenBook | None) -> None:
        self._engine = engine
        self._gate = gate
        self._book = book

    def __call__(self, handler: Handler, scope: Scope | None, render: Render) -> Endpoint:
        """`scope`: what a token must allow; None: any valid token will do."""

        async def guarded(request: Request) -> Response:
            try:
                token = None
                if self._book is not None:
                    token = self._book.caller(request.headers.get("authorization"), scope)
                with self._gate.visit(token.id if token is not None else None) as visit:
                    return await handler(request, visit)
            except ClientDisconnect:
                # Nobody is left to read an answer; 499 is what access logs call it.
                return Response(status_code=499)
            except Exception as error:  # noqa: BLE001 - answered as a problem, and logged if unexpected
                self._engine.count_error(error)
                return render(logged_problem(error), headers_of(error))

        return guarded


def logged_problem(error: Exception) -> Problem:
    """The problem to answer with; an unexpected error is logged under the id that the problem names."""
    request_id = None
    if shape_of(error).status == 500:
        request_id = keys.timestamped_id(now())
        logger.error("request %s failed: %s", request_id, escaped_trace(error))
    return problem_of(error, request_id)


def as_problem(problem: Problem, headers: dict[str, str]) -> Response:
    """Problem details, RFC 9457."""
    return Response(
        problem.model_dump_json(exclude_none=True), problem.status, headers, "application/problem+json"
    )


def as_json(record: Record, *, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(record.model_dump_json(), status, headers, "application/json")
