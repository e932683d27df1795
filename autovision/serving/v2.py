"""The routes of the Open Inference Protocol v2, which clients of Triton and KServe speak.

    GET  /v2                                            name, version, extensions
    GET  /v2/health/live, /v2/health/ready              200, or 503 while there is no model
    GET  /v2/models/MODEL[/versions/VERSION]            inputs and outputs
    GET  /v2/models/MODEL[/versions/VERSION]/ready
    POST /v2/models/MODEL[/versions/VERSION]/infer      see `oip`
    POST /v2/repository/index                           the one model there is

MODEL is the deployment's name, or the id of the model that the server is pinned to; VERSION is a model version's id.
An error is `{"error": "…"}`, with the status that `problems` has for it.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import cache
from importlib import metadata
from time import perf_counter
from typing import Any

from pydantic_core import to_json
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from autovision.errors import ImageTooLarge, InvalidImage, InvalidInput
from autovision.records.models import ModelVersion
from autovision.records.tokens import Scope
from autovision.serving import oip
from autovision.serving.asking import Asking, ask_all
from autovision.serving.body import COMPRESSED, KEY_HEADER, metadata_of, read_body
from autovision.serving.capture import Answered
from autovision.serving.engine import Engine
from autovision.serving.guard import Guard
from autovision.serving.limits import Limits, Visit, within
from autovision.serving.predicting import Input
from autovision.serving.problems import ModelChanged, NotServed
from autovision.serving.schema import Problem

HEADER_LENGTH = "inference-header-content-length"
COMPRESS_FROM_BYTES = 1024
"""a smaller answer is sent as it is, whatever the caller accepts"""
PARSE_ASIDE_BYTES = 64 * 1024
"""JSON from this size on is read on a thread"""


def routes(engine: Engine, guard: Guard, limits: Limits, clock: Callable[[], datetime]) -> list[Route]:
    """All routes under /v2."""
    v2 = _V2(engine, limits, clock)
    found = [
        Route("/v2", guard(v2.server, None, as_error), methods=["GET"]),
        Route("/v2/health/live", v2.live, methods=["GET"]),
        Route("/v2/health/ready", v2.ready, methods=["GET"]),
        Route("/v2/repository/index", guard(v2.index, None, as_error), methods=["POST"]),
    ]
    for path in ("/v2/models/{name}", "/v2/models/{name}/versions/{version}"):
        found += [
            Route(path, guard(v2.model, None, as_error), methods=["GET"]),
            Route(f"{path}/ready", guard(v2.model_ready, None, as_error), methods=["GET"]),
            Route(f"{path}/infer", guard(v2.infer, Scope.PREDICT, as_error), methods=["POST"]),
        ]
    return found


def as_error(problem: Problem, headers: dict[str, str]) -> Response:
    """An error in this protocol's form."""
    about = f" (request {problem.request_id})" if problem.request_id else ""
    return _json({"error": f"{problem.detail}{about}"}, problem.status, headers)


def _json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(to_json(value), status, headers, "application/json")


@cache
def _version() -> str:
    return metadata.version("autovision")


class _V2:
    """The handlers of /v2."""

    def __init__(self, engine: Engine, limits: Limits, clock: Callable[[], datetime]) -> None:
        self._engine = engine
        self._limits = limits
        self._clock = clock

    async def server(self, request: Request, visit: Visit) -> Response:
        return _json({"name": "autovision", "version": _version(), "extensions": oip.EXTENSIONS})

    async def live(self, request: Request) -> Response:
        return _json({"live": True})

    async def ready(self, request: Request) -> Response:
        return self._readiness()

    async def model_ready(self, request: Request, visit: Visit) -> Response:
        self._check_name(request)
        served = self._engine.served
        if served is not None:
            _check_version(request, served.predictor.model.id)
        return self._readiness(name=self._name)

    async def model(self, request: Request, visit: Visit) -> Response:
        model = self._model(request)
        return _json(oip.metadata(request.path_params["name"], model))

    async def index(self, request: Request, visit: Visit) -> Response:
        served = self._engine.served
        if served is None:
            return _json([{"name": self._name, "state": "UNAVAILABLE", "reason": "no model is loaded yet"}])
        version = served.predictor.model.id
        return _json([{"name": self._name, "version": version, "state": "READY", "reason": ""}])

    async def infer(self, request: Request, visit: Visit) -> Response:
        begun, received_at = perf_counter(), self._clock()
        engine, limits = self._engine, self._limits
        engine.count_request()
        self._check_name(request)
        engine.admit()
        self._model(request)
        visit.hold_images(1)
        said_of = metadata_of(request.scope["headers"])
        body = await read_body(
            request,
            engine.config.max_body_bytes,
            timeout_s=limits.body_timeout_s,
            hold=visit.hold_bytes,
            encodings=COMPRESSED,
        )
        asked = await self._parsed(body, _header_bytes(request))
        visit.hold_images(len(asked.images) - 1)
        engine.count_request(len(asked.images) - 1)
        allowed_s = min(limits.deadline_s, asked.timeout_s or limits.deadline_s)
        asking = Asking(said_of, received_at, begun, request.headers.get(KEY_HEADER))
        # Who names a version has named the champion's, and gets no other's answer during a rollout.
        pinned = "version" in request.path_params
        answers = await within(allowed_s, self._answers(asked.images, asking, champion=pinned))
        _check_version(request, answers[0].model)
        classes = tuple(answers[0].prediction.probabilities)
        content, json_bytes = oip.render(request.path_params["name"], asked, answers, classes)
        return await _compressed(content, json_bytes, request.headers.get("accept-encoding", ""))

    async def _parsed(self, body: bytes, header_bytes: int | None) -> oip.Asked:
        size = len(body) if header_bytes is None else header_bytes
        if size < PARSE_ASIDE_BYTES:
            return oip.parse(body, header_bytes, self._limits.max_images)
        return await run_in_threadpool(oip.parse, body, header_bytes, self._limits.max_images)

    async def _answers(
        self, images: Sequence[Input], asking: Asking, *, champion: bool = False
    ) -> list[Answered]:
        """One an image, all of one model version: an answer in this protocol names exactly one."""
        answers = await self._asked(images, asking, range(len(images)), champion=champion)
        if len({answer.model for answer in answers.values()}) > 1:
            # The model was replaced in between, or a challenger failed on some: the champion answers those that it
            # has not.
            served = self._engine.served
            wanted = served.predictor.model.id if served is not None else ""
            others = [number for number, answer in answers.items() if answer.model != wanted]
            answers |= await self._asked(images, asking, others, champion=True)
        if len({answer.model for answer in answers.values()}) > 1:
            raise ModelChanged
        return [answers[number] for number in range(len(images))]

    async def _asked(
        self, images: Sequence[Input], asking: Asking, numbers: Sequence[int], *, champion: bool = False
    ) -> dict[int, Answered]:
        """The answers for the images of these numbers. Raises the first one's error that has none."""
        results = await ask_all(
            self._engine, [images[number] for number in numbers], asking, champion=champion
        )
        found = {}
        for number, result in zip(numbers, results, strict=True):
            if isinstance(result, Exception):
                raise _of_image(result, number, len(images))
            found[number] = result
        return found

    @property
    def _name(self) -> str:
        config = self._engine.config
        name = config.deployment or config.model
        assert name is not None, "EngineConfig has one of them"
        return name

    def _check_name(self, request: Request) -> None:
        asked: str = request.path_params["name"]
        if asked != self._name:
            raise NotServed(f"model {asked[:80]!r} is not served here; {self._name!r} is")

    def _model(self, request: Request) -> ModelVersion:
        """The model that is asked for. Raises `NotServed`, `NoModel`."""
        self._check_name(request)
        served = self._engine.served
        if served is None:
            raise self._engine.refusal() or ModelChanged()
        model = served.predictor.model
        _check_version(request, model.id)
        return model

    def _readiness(self, **about: str) -> Response:
        ready = self._engine.served is not None
        said = {**about, "ready": ready}
        return _json(said, 200 if ready else 503, None if ready else {"retry-after": "2"})


def _check_version(request: Request, served: str) -> None:
    asked: str | None = request.path_params.get("version")
    if asked is not None and asked != served:
        raise NotServed(f"version {asked[:80]!r} is not served here; {served!r} is, or ask without a version")


def _header_bytes(request: Request) -> int | None:
    said = request.headers.get(HEADER_LENGTH)
    if said is None:
        return None
    if not (said.isascii() and said.isdigit() and len(said) < 12):
        raise InvalidInput(
            f"Inference-Header-Content-Length is {said[:20]!a}; send the JSON's number of bytes"
        )
    return int(said)


def _of_image(error: Exception, number: int, count: int) -> Exception:
    """The error, naming which image it is about where there are several."""
    if count == 1 or not isinstance(error, InvalidImage):
        return error
    kind = ImageTooLarge if isinstance(error, ImageTooLarge) else InvalidImage
    return kind(f"image {number} of the request: {error}")


async def _compressed(content: bytes, json_bytes: int | None, accepted: str) -> Response:
    """The answer, compressed if the caller accepts that and it is large enough to be worth it."""
    headers = {} if json_bytes is None else {HEADER_LENGTH: str(json_bytes)}
    media_type = "application/json" if json_bytes is None else "application/octet-stream"
    names = [part.partition(";")[0].strip().lower() for part in accepted.split(",")]
    encoding = next((name for name in names if name in COMPRESSED), None)
    if encoding is not None and len(content) >= COMPRESS_FROM_BYTES:
        content = await run_in_threadpool(_deflated, content, encoding)
        headers |= {"content-encoding": encoding, "vary": "accept-encoding"}
    return Response(content, headers=headers, media_type=media_type)


def _deflated(content: bytes, encoding: str) -> bytes:
    """Quickly rather than well: tensors hardly become smaller."""
    encoder = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS | (16 if encoding == "gzip" else 0))
    return encoder.compress(content) + encoder.flush()
