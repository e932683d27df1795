"""Data sets: which there are, and what a version holds. Images do not travel here."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path

from autovision.dataset import catalog
from autovision.service.access import Reader
from autovision.service.context import Ctx
from autovision.service.paging import Cursor, Limit, page
from autovision.service.routes.common import answer, problems
from autovision.service.schema import DatasetView, Page
from autovision.store import keys

router = APIRouter(prefix="/datasets", tags=["data sets"], responses=problems())


@router.get("", response_model=Page[DatasetView])
def list_datasets(context: Ctx, caller: Reader, limit: Limit = 50, cursor: Cursor = None) -> Any:
    """The data sets by name, each with its latest version."""
    found = page(catalog.list_names(context.store), str, limit, cursor, str)
    views = [DatasetView.of(catalog.latest(context.store, name)) for name in found.items]
    return answer(Page[DatasetView](items=views, next=found.next))


@router.get("/{dataset}", response_model=DatasetView, responses=problems(404))
def show_dataset(
    context: Ctx,
    caller: Reader,
    dataset: Annotated[
        str,
        Path(
            max_length=80,
            pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}(@[0-9]{1,9})?$",
            examples=["pets", "pets@3"],
        ),
    ],
) -> Any:
    """The latest version of a data set, or that of NAME@V."""
    keys.check_name(dataset.partition("@")[0], what="the data set's name")
    return answer(DatasetView.of(catalog.get(context.store, dataset)))
