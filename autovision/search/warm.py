"""Where a search begins: the champion, what earlier searches found, the space's own default.

Earlier searches are those on any version of the same data set, and on data sets that look like it (`similarity.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from autovision.errors import NotFound
from autovision.model.version import read_version
from autovision.records.searches import SearchRequest
from autovision.records.trials import TrialResult
from autovision.search.similarity import Neighbour
from autovision.space import Space
from autovision.space.config import TrialConfig
from autovision.store import keys, records
from autovision.store.protocol import KeyNotFound, Store

_FROM_LEDGER = 3
_FROM_NEIGHBOURS = 3


@dataclass(frozen=True)
class Start:
    """A point that is tried before the sampler draws any."""

    point: dict[str, Any]
    origin: str
    """`champion`, `ledger`, `similar` or `default`"""
    initial_model: str | None = None
    """a model whose head the trial starts from"""


def starting_points(store: Store, request: SearchRequest, space: Space) -> list[Start]:
    """The points to try first, without repetition; the default alone where nothing is known or wanted."""
    candidates: list[Start] = []
    if request.warm_start:
        candidates += _champion(store, request, space)
        candidates += [
            Start(point, "ledger")
            for result in _earlier_winners(store, request)
            if (point := space.project(TrialConfig.model_validate(result.config))) is not None
        ]
    candidates.append(Start(space.default(), "default"))
    distinct: dict[str, Start] = {}
    for start in candidates:
        distinct.setdefault(space.config(start.point).digest, start)
    return list(distinct.values())


def similar_points(
    store: Store, request: SearchRequest, space: Space, neighbours: Sequence[Neighbour]
) -> list[Start]:
    """The winners on data sets that look like this one, nearest first, without repetition."""
    if not request.warm_start:
        return []
    distinct: dict[str, Start] = {}
    for neighbour in neighbours:
        (winner,) = _best(_earlier(store, request, neighbour.name), 1) or (None,)
        if winner is None:
            continue
        point = space.project(TrialConfig.model_validate(winner.config))
        if point is not None:
            distinct.setdefault(space.config(point).digest, Start(point, "similar"))
    return list(distinct.values())[:_FROM_NEIGHBOURS]


def _champion(store: Store, request: SearchRequest, space: Space) -> list[Start]:
    if request.parent_model is None:
        return []
    try:
        version = read_version(store, request.parent_model)
    except NotFound:
        return []
    point = space.project(TrialConfig.model_validate(version.lineage.config))
    if point is None:
        return []
    return [Start(point, "champion", version.id)]


def _earlier_winners(store: Store, request: SearchRequest) -> list[TrialResult]:
    """The best trials of earlier searches on any version of the same data set."""
    return _best(_earlier(store, request, request.dataset), _FROM_LEDGER)


def _earlier(store: Store, request: SearchRequest, dataset: str) -> list[TrialResult]:
    """The trials of other searches on a data set, for the same metric."""
    results = []
    for search in sorted({key.split("/")[1] for key in store.list(keys.SEARCHES)} - {request.id}):
        try:
            other = records.read(store, keys.search_request(search), SearchRequest)
        except KeyNotFound:
            continue
        if other.dataset == dataset and other.metric == request.metric:
            results += records.read_all(store, keys.trials(search), TrialResult)
    return results


def _best(results: Sequence[TrialResult], count: int) -> list[TrialResult]:
    """The best that left a model, each configuration once."""
    usable = (r for r in results if r.value is not None and r.weights_key is not None)
    ranked = sorted(usable, key=lambda r: r.value or 0.0, reverse=True)
    distinct = {TrialConfig.model_validate(r.config).digest: r for r in reversed(ranked)}
    return sorted(distinct.values(), key=lambda r: r.value or 0.0, reverse=True)[:count]
