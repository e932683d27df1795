"""Where a search begins: the champion, what earlier searches found, the space's own default."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from autovision.errors import NotFound
from autovision.model.version import read_version
from autovision.records import SearchRequest, TrialResult
from autovision.space import Space
from autovision.space.config import TrialConfig
from autovision.store import keys, records
from autovision.store.protocol import KeyNotFound, Store

_FROM_LEDGER = 3


@dataclass(frozen=True)
class Start:
    """A point that is tried before the sampler draws any."""

    point: dict[str, Any]
    origin: str
    """`champion`, `ledger` or `default`"""
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
    """The best trials of the latest earlier searches on any version of the same data set."""
    searches = sorted({key.split("/")[1] for key in store.list(keys.SEARCHES)} - {request.id})
    related = []
    for search in searches:
        try:
            other = records.read(store, keys.search_request(search), SearchRequest)
        except KeyNotFound:
            continue
        if other.dataset == request.dataset and other.metric == request.metric:
            related += records.read_all(store, keys.trials(search), TrialResult)
    usable = (r for r in related if r.value is not None and r.weights_key is not None)
    ranked = sorted(usable, key=lambda r: r.value or 0.0, reverse=True)
    distinct = {TrialConfig.model_validate(r.config).digest: r for r in reversed(ranked)}
    return sorted(distinct.values(), key=lambda r: r.value or 0.0, reverse=True)[:_FROM_LEDGER]
