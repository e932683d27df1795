"""The HTTP routes over an engine, as a Starlette app.

    POST /v1/predict    image bytes (any Content-Type), or a form with one file -> Answer
                        a form with several files -> a list, an Answer or a Problem for each in its place
    POST /v1/feedback   one Feedback or a list -> FeedbackReceipt; all of a list or nothing is checked first
    GET  /v1/health     Health: 200 when images can be answered, else 503
    GET  /v1/model      ServerInfo
    GET  /metrics       in Prometheus' text format
    /v2                 the Open Inference Protocol: see `v2`

Every error is `application/problem+json` (under /v2 what that protocol has instead); `problems` lists kinds and
statuses. FastAPI would validate nothing here that is not validated anyway and costs a multiple per request.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from time import perf_counter

from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from autovision.records.base import now
from autovision.records.tokens import Scope
from autovision.serving import v2
from autovision.serving.asking import Asking, ask_all
from autovision.serving.auth import TokenBook
from autovision.serving.body import KEY_HEADER, images_of, metadata_of, read_body
from autovision.serving.engine import Engine, answer_of
from autovision.serving.guard import Guard, as_json, as_problem, logged_problem
from autovision.serving.limits import Gate, Limits, Visit, within
from autovision.serving.problems import InvalidFeedback
from autovision.serving.schema import Feedback, Problem

MAX_FEEDBACK = 1000
"""labels in one request"""
MAX_FEEDBACK_BYTES = 2**20
TOKENS_WAIT_S = 2.0
"""so long a server that starts waits for its tokens; until it has them it lets nobody in"""
SETTLE_POLL_S = 0.02

_FEEDBACK = TypeAdapter(list[Feedback])
_ROUTES = "POST /v1/predict, POST /v1/feedback, GET /v1/health, GET /v1/model, GET /metrics, and those of /v2"


def build_app(
    engine: Engine,
    *,
    book: TokenBook | None = None,
    limits: Limits | None = None,
    clock: Callable[[], datetime] = now,
    settle_s: float = 0.0,
) -> Starlette:
    """The app. Its lifespan starts and closes the engine and the book.

    Args:
        book: who may do what; None: everyone may do everything.
        settle_s: so long the lifespan's begin waits for the first model, so that who asks finds it.
    """
    limits = limits or Limits()
    guard = Guard(engine, Gate(limits), book)
    routes = _V1(engine, limits, clock)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        engine.start()
        if book is not None:
            book.start()
            await run_in_threadpool(book.wait_read, TOKENS_WAIT_S)
        with suppress(TimeoutError):
            async with asyncio.timeout(settle_s):
                while not engine.settled:
                    await asyncio.sleep(SETTLE_POLL_S)
        yield
        if book is not None:
            await run_in_threadpool(book.close)
        await engine.drain()
        await run_in_threadpool(engine.close)

    app = Starlette(
        routes=[
            Route("/v1/predict", guard(routes.predict, Scope.PREDICT, as_problem), methods=["POST"]),
            Route("/v1/feedback", guard(routes.feedback, Scope.FEEDBACK, as_problem), methods=["POST"]),
            Route("/v1/health", routes.health, methods=["GET"]),
            Route("/v1/model", guard(routes.model, None, as_problem), methods=["GET"]),
            Route("/metrics", guard(routes.metrics, Scope.ADMIN, as_problem), methods=["GET"]),
            *v2.routes(engine, guard, limits, clock),
        ],
        exception_handlers={HTTPException: _http_problem},
        lifespan=lifespan,
    )
    # A redirect would name neither the edge's scheme nor the deployment, of which replicas know nothing.
    app.router.redirect_slashes = False
    return app


class _V1:
    """The handlers of /v1."""

    def __init__(self, engine: Engine, limits: Limits, clock: Callable[[], datetime]) -> None:
        self._engine = engine
        self._limits = limits
        self._clock = clock

    async def predict(self, request: Request, visit: Visit) -> Response:
        begun, received_at = perf_counter(), self._clock()
        engine, limits = self._engine, self._limits
        engine.count_request()
        engine.admit()
        visit.hold_images(1)
        metadata = metadata_of(request.scope["headers"])
        key = request.headers.get(KEY_HEADER)
        body = await read_body(
            request, engine.config.max_body_bytes, timeout_s=limits.body_timeout_s, hold=visit.hold_bytes
        )
        images = images_of(request.headers.get("content-type", ""), body)
        if isinstance(images, bytes):
            answer = engine.answer(images, metadata, received_at, begun, key)
            return as_json(await within(limits.deadline_s, answer))
        visit.hold_images(len(images) - 1)
        engine.count_request(len(images) - 1)
        asked = Asking(metadata, received_at, begun, key)
        return await within(limits.deadline_s, self._answer_all(images, asked))

    async def _answer_all(self, images: Sequence[bytes], asked: Asking) -> Response:
        results = await ask_all(self._engine, images, asked)
        said: list[str] = []
        for result in results:
            if isinstance(result, Exception):
                self._engine.count_error(result)
                said.append(logged_problem(result).model_dump_json(exclude_none=True))
            else:
                said.append(answer_of(result).model_dump_json())
        return Response(f"[{','.join(said)}]", media_type="application/json")

    async def feedback(self, request: Request, visit: Visit) -> Response:
        timeout_s = self._limits.body_timeout_s
        body = await read_body(request, MAX_FEEDBACK_BYTES, timeout_s=timeout_s, hold=visit.hold_bytes)
        return as_json(await within(self._limits.deadline_s, self._engine.label(parse_feedback(body))))

    async def health(self, request: Request) -> Response:
        state = self._engine.health()
        if state.status == "ready":
            return as_json(state)
        return as_json(state, status=503, headers={"retry-after": "2"})

    async def model(self, request: Request, visit: Visit) -> Response:
        return as_json(self._engine.info())

    async def metrics(self, request: Request, visit: Visit) -> Response:
        metrics = self._engine.metrics
        return Response(metrics.render(), media_type=metrics.CONTENT_TYPE)


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
    render = v2.as_error if request.url.path.startswith("/v2") else as_problem
    return render(problem, dict(error.headers or {}))
