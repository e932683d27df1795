"""Whether the service is there, and whether it can answer. Open to everyone, and silent about everything else."""

from __future__ import annotations

from importlib import metadata
from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from autovision.service.context import Ctx
from autovision.service.routes.common import answer
from autovision.service.schema import ServiceHealth
from autovision.store import tokens

router = APIRouter(prefix="/health", tags=["health"])


@router.get("/live", response_model=ServiceHealth)
def live() -> Any:
    """The process answers."""
    return answer(ServiceHealth(status="live", version=_version()))


@router.get("/ready", response_model=ServiceHealth, responses={503: {"model": ServiceHealth}})
def ready(context: Ctx) -> Any:
    """The store can be read."""
    try:
        tokens.read(context.store)
    except Exception:  # noqa: BLE001 - whatever keeps the store from being read
        return _waiting()
    if context.closing.is_set():
        return _waiting()
    return answer(ServiceHealth(status="ready", version=_version()))


def _waiting() -> Response:
    return answer(ServiceHealth(status="waiting", version=_version()), 503, retry_after="2")


def _version() -> str:
    return metadata.version("autovision")
