"""What Prometheus asks for. It wants a token with the scope `admin`, as everything does that tells of all callers."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.responses import PlainTextResponse, Response

from autovision.service.access import Admin
from autovision.service.context import Ctx
from autovision.service.metrics import ServiceMetrics
from autovision.service.routes.common import problems

router = APIRouter(tags=["metrics"], responses=problems())


@router.get("/metrics", response_class=PlainTextResponse)
def tell_metrics(context: Ctx, caller: Admin) -> Any:
    """Requests by route, latency, and the queue, in Prometheus' text format; of this one service."""
    return Response(context.metrics.render(), media_type=ServiceMetrics.CONTENT_TYPE)
