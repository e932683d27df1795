"""Turning errors into answers: every error has one HTTP status, one kind and one sentence with the remedy."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from autovision.errors import (
    AutoVisionError,
    Conflict,
    ImageTooLarge,
    InvalidImage,
    InvalidInput,
    StoreUnavailable,
)
from autovision.records.tokens import Scope
from autovision.serving.schema import Problem


class Refusal(AutoVisionError):
    """The request was refused; the detail says why."""

    status = 400
    kind = "bad-request"
    title = "Bad request"
    retry_after_s: int | None = None
    headers: Mapping[str, str] = MappingProxyType({})
    """further headers of the answer"""


class EmptyBody(Refusal):
    """The request has no body; send the bytes of one image."""

    kind = "empty-body"
    title = "Empty body"


class BodyTooLarge(Refusal):
    """The body is larger than the server takes; scale the image down."""

    status = 413
    kind = "too-large"
    title = "Too large"


class TooManyImages(Refusal):
    """The request holds more images than the server takes at once; send them in several requests."""

    status = 413
    kind = "too-many-images"
    title = "Too many images"


class SlowBody(Refusal):
    """The body did not arrive in time; send it faster, or scale the image down."""

    status = 408
    kind = "slow-body"
    title = "Body too slow"
    # What is still to come would be taken for the next request.
    headers = MappingProxyType({"connection": "close"})


class DeadlineExceeded(Refusal):
    """The answer was not there in time; try again, or allow the request more time."""

    status = 504
    kind = "deadline"
    title = "Not answered in time"


class Unauthorized(Refusal):
    """This server needs a token; send `Authorization: Bearer TOKEN`, made with `autovision token create`."""

    status = 401
    kind = "unauthorized"
    title = "No valid token"

    def __init__(self, message: str | None = None, *, presented: bool = False) -> None:
        super().__init__(message)
        # RFC 6750: without any token no error is named.
        error = ', error="invalid_token"' if presented else ""
        self.headers = {"www-authenticate": f'Bearer realm="autovision"{error}'}


class Forbidden(Refusal):
    """The token does not have the scope that this route needs."""

    status = 403
    kind = "forbidden"
    title = "Scope missing"

    def __init__(self, scope: Scope) -> None:
        super().__init__(f"the token lacks the scope {scope.value!r}; use one that was created with it")
        challenge = f'Bearer realm="autovision", error="insufficient_scope", scope="{scope.value}"'
        self.headers = {"www-authenticate": challenge}


class AccessUnknown(Refusal):
    """The server could not read yet which tokens there are, and so lets nobody in; try again in a moment."""

    status = 503
    kind = "access-unknown"
    title = "Tokens not known yet"
    retry_after_s = 2


class TooManyAtOnce(Refusal):
    """This token has as many images in the server as one may have; wait for answers before sending more."""

    status = 429
    kind = "too-many-at-once"
    title = "More than one caller's share"
    retry_after_s = 1


class NotServed(Refusal):
    """This server does not serve that model."""

    status = 404
    kind = "not-served"
    title = "Not served here"


class ModelChanged(Refusal):
    """The model was replaced while the images of this request were answered; send it again."""

    status = 503
    kind = "model-changed"
    title = "Model replaced meanwhile"
    retry_after_s = 1


class UnsupportedEncoding(Refusal):
    """The body is compressed; send the image's bytes as they are, without Content-Encoding."""

    status = 415
    kind = "unsupported-encoding"
    title = "Unsupported content encoding"


class InvalidFeedback(Refusal):
    """The feedback is not valid; send {"request_id": …, "label": …}, or "labels": […] to a model of any number of
    classes, or a list of such objects."""

    status = 422
    kind = "invalid-feedback"
    title = "Invalid feedback"


class UnknownLabel(Refusal):
    """The label is none of the model's classes."""

    status = 422
    kind = "unknown-label"
    title = "Unknown label"


class NoDeployment(Refusal):
    """This server is pinned to one model and so keeps no labels; serve a deployment to give feedback."""

    status = 409
    kind = "no-deployment"
    title = "No deployment"


class NoModel(Refusal):
    """No model is loaded yet; try again in a moment."""

    status = 503
    kind = "no-model"
    title = "No model yet"
    retry_after_s = 2


class QueueFull(Refusal):
    """More requests are waiting than the server can hold; try again in a moment."""

    status = 503
    kind = "queue-full"
    title = "Overloaded"
    retry_after_s = 1


class ShuttingDown(Refusal):
    """The server is shutting down; try again in a moment."""

    status = 503
    kind = "shutting-down"
    title = "Shutting down"
    retry_after_s = 2


class _Shape(NamedTuple):
    status: int
    kind: str
    title: str
    retry_after_s: int | None = None


# The most special class first. An image that cannot be decoded is 422 whatever its Content-Type says:
# the type is never looked at, so 415 would blame the wrong thing.
_SHAPES: tuple[tuple[type[Exception], _Shape], ...] = (
    (ImageTooLarge, _Shape(413, "too-large", "Too large")),
    (InvalidImage, _Shape(422, "invalid-image", "Not an image")),
    (InvalidInput, _Shape(400, "bad-request", "Bad request")),
    (Conflict, _Shape(503, "store-unavailable", "Store busy", 1)),
    (StoreUnavailable, _Shape(503, "store-unavailable", "Store unavailable", 5)),
)
_INTERNAL = _Shape(500, "internal", "Internal error")


def shape_of(error: Exception) -> _Shape:
    """Status, kind, title and `Retry-After` (s) for an error."""
    if isinstance(error, Refusal):
        return _Shape(error.status, error.kind, error.title, error.retry_after_s)
    return next((shape for known, shape in _SHAPES if isinstance(error, known)), _INTERNAL)


def headers_of(error: Exception) -> dict[str, str]:
    """The headers of the answer to an error."""
    retry_after_s = shape_of(error).retry_after_s
    headers = dict(error.headers) if isinstance(error, Refusal) else {}
    return headers if retry_after_s is None else headers | {"retry-after": str(retry_after_s)}


def problem_of(error: Exception, request_id: str | None = None) -> Problem:
    """Problem details for an error. An unexpected one gives nothing of its inside away."""
    shape = shape_of(error)
    detail = (
        str(error)
        if shape is not _INTERNAL
        else "The server failed on this request; its log names the cause under the request id. Others go on."
    )
    return Problem(
        type=f"urn:autovision:problem:{shape.kind}",
        title=shape.title,
        status=shape.status,
        detail=detail,
        request_id=request_id,
    )


def escaped_trace(error: BaseException) -> str:
    """The traceback on one line, everything unprintable escaped, so that no input forges log lines."""
    return ascii("".join(traceback.format_exception(error)))
