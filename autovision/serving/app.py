"""The HTTP routes over an engine, as a Starlette app.

    POST /v1/predict    image bytes (any Content-Type) or a form with one file -> Answer
    POST /v1/feedback   one Feedback or a list -> FeedbackReceipt; all of a list or nothing is checked first
    GET  /v1/health     Health: 200 when images can be answered, else 503
    GET  /v1/model      ServerInfo

Every error is `application/problem+json`; `problems` lists kinds and statuses. FastAPI would validate
nothing here that is not validated anyway and costs a multiple per request.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from time import perf_counter

from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from autovision.records.base import Record, now
from autovision.serving.body import image_of, metadata_of, read_body
from autovision.serving.engine import Engine
from autovision.serving.problems import InvalidFeedback, escaped_trace, problem_of, shape_of
from autovision.serving.schema import Feedback, Problem
from autovision.store import keys

logger = logging.getLogger(__name__)

MAX_FEEDBACK = 1000
"""labels in one request"""
MAX_FEEDBACK_BYTES = 2**20

KEY_HEADER = "x-autovision-key"
"""names the caller: during a rollout all requests with one key are answered by the same model"""

_FEEDBACK = TypeAdapter(list[Feedback])
_ROUTES = "POST /v1/predict, POST /v1/feedback, GET /v1/health, GET /v1/model"

Handler = Callable[[Request], Awaitable[Response]]


def build_app(engine: Engine, *, clock: Callable[[], datetime] = now) -> Starlette:
    """The app. Its lifespan starts and closes the engine."""

    async def predict(request: Request) -> Response:
        begun, received_at = perf_counter(), clock()
        engine.count_request()
        engine.admit()
        metadata = metadata_of(request.scope["headers"])
        body = await read_body(request, engine.config.max_body_bytes)
        image = image_of(request.headers.get("content-type", ""), body)
        key = request.headers.get(KEY_HEADER)
        return _json(await engine.answer(image, metadata, received_at, begun, key))

    async def feedback(request: Request) -> Response:
        body = await read_body(request, MAX_FEEDBACK_BYTES)
        return _json(await engine.label(parse_feedback(body)))

    async def health(request: Request) -> Response:
        state = engine.health()
        if state.status == "ready":
            return _json(state)
        return _json(state, status=503, headers={"retry-after": "2"})

    async def model(request: Request) -> Response:
        return _json(engine.info())

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        engine.start()
        yield
        await engine.drain()
        await run_in_threadpool(engine.close)

    return Starlette(
        routes=[
            Route("/v1/predict", _guarded(predict, engine), methods=["POST"]),
            Route("/v1/feedback", _guarded(feedback, engine), methods=["POST"]),
            Route("/v1/health", health, methods=["GET"]),
            Route("/v1/model", model, methods=["GET"]),
        ],
        exception_handlers={HTTPException: _http_problem},
        lifespan=lifespan,
    )


def parse_feedback(body: bytes) -> list[Feedback]:
    """One feedback object or a list of them. Raises `InvalidFeedback`, naming up to three faulty fields."""
    try:
        value = from_json(body)
    except ValueError as error:
        raise InvalidFeedback(
            f"the body is not JSON: {error}; send {{'request_id': …, 'label': …}}"
        ) from None
    items = value if isinstance(value, list) else [value]
    if not 0 < len(items) <= MAX_FEEDBACK:
        raise InvalidFeedback(f"the list has {len(items)} labels; send 1 to {MAX_FEEDBACK} at a time")
    try:
        return _FEEDBACK.validate_python(items)
    except ValidationError as error:
        faults = [
            f"{'.'.join(str(part) for part in fault['loc'][1:]) or 'value'} of label {fault['loc'][0]}: "
            f"{fault['msg']} (got {str(fault['input'])[:80]!r})"
            for fault in error.errors(include_url=False)[:3]
        ]
        raise InvalidFeedback("; ".join(faults)) from None


def _guarded(handler: Handler, engine: Engine) -> Handler:
    """The handler with its errors counted and turned into problems."""

    async def guarded(request: Request) -> Response:
        try:
            return await handler(request)
        except ClientDisconnect:
            # Nobody is left to read an answer; 499 is what access logs call it.
            return Response(status_code=499)
        except Exception as error:  # noqa: BLE001 - answered as a problem, and logged if unexpected
            engine.count_error(error)
            return _problem_response(error)

    return guarded


def _problem_response(error: Exception) -> Response:
    shape = shape_of(error)
    request_id = None
    if shape.status == 500:
        request_id = keys.timestamped_id(now())
        logger.error("request %s failed: %s", request_id, escaped_trace(error))
    headers = {"retry-after": str(shape.retry_after_s)} if shape.retry_after_s is not None else None
    return _problem(problem_of(error, request_id), headers)


async def _http_problem(request: Request, error: Exception) -> Response:
    """404 and 405, which Starlette's router raises."""
    assert isinstance(error, HTTPException)
    detail = (
        f"no such path; there are {_ROUTES}"
        if error.status_code == 404
        else f"method {request.method[:16]!a} is not allowed here; there are {_ROUTES}"
    )
    kind = {404: "not-found", 405: "method-not-allowed"}.get(error.status_code, "http")
    problem = Problem(
        type=f"urn:autovision:problem:{kind}", title=error.detail, status=error.status_code, detail=detail
    )
    return _problem(problem, dict(error.headers or {}))


def _problem(problem: Problem, headers: dict[str, str] | None) -> Response:
    return Response(
        problem.model_dump_json(exclude_none=True), problem.status, headers, "application/problem+json"
    )


def _json(record: Record, *, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(record.model_dump_json(), status, headers, "application/json")
