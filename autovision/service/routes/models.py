"""Models: what they are, where they came from, and how they do on images that they never saw."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import TypeAdapter
from starlette.responses import Response

from autovision.model.version import read_version
from autovision.records.models import Evaluation, Lineage, ModelVersion
from autovision.registry import catalog
from autovision.service.access import Reader
from autovision.service.context import Context, Ctx
from autovision.service.paging import Cursor, Limit, page
from autovision.service.routes.common import ModelId, answer, problems
from autovision.service.schema import Page
from autovision.store import keys

router = APIRouter(prefix="/models", tags=["models"], responses=problems())

_EVALUATIONS = TypeAdapter(dict[str, Evaluation])


@router.get("", response_model=Page[ModelVersion])
def list_models(context: Ctx, caller: Reader, limit: Limit = 50, cursor: Cursor = None) -> Any:
    """The model versions, oldest first."""
    found = page(
        catalog.all_versions(context.store),
        lambda each: f"{keys.stamp(each.created_at)}-{each.id}",
        limit,
        cursor,
        lambda each: each,
    )
    return answer(found)


@router.get("/{model}", response_model=ModelVersion, responses=problems(404))
def show_model(context: Ctx, caller: Reader, model: ModelId) -> Any:
    """A model version with its figures."""
    return answer(_found(context, model))


@router.get("/{model}/lineage", response_model=Lineage, responses=problems(404))
def show_lineage(context: Ctx, caller: Reader, model: ModelId) -> Any:
    """Everything that a model came from: data, weights, space, configuration, seed, code, parents."""
    return answer(_found(context, model).lineage)


@router.get("/{model}/evaluation", response_model=dict[str, Evaluation], responses=problems(404))
def show_evaluation(context: Ctx, caller: Reader, model: ModelId) -> Any:
    """How it does on the test split, and on each declared subgroup of it."""
    found = _found(context, model).metrics
    return Response(_EVALUATIONS.dump_json(found), media_type="application/json")


def _found(context: Context, model: str) -> ModelVersion:
    return read_version(context.store, keys.check_id(model, what="model"))
