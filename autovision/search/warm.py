"""Where a search begins: the champion, what earlier searches found, the space's own default.

Earlier searches are those on any version of the same data set, and on data sets that look like it (`similarity.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from autovision.errors import NotFound
from autovision.model.version import read_version
from autovision.records.searches import SearchRequest, SearchState
from autovision.records.trials import TrialResult
from autovision.search.arms import FEATURES
from autovision.search.similarity import Neighbour
from autovision.space import Space
from autovision.space.config import TrialConfig
from autovision.space.parameters import Float
from autovision.store import keys, records
from autovision.store.protocol import Store

_FROM_LEDGER = 12
"""trials: the best; heads of the same features and shape are trained together, for little more than one takes"""
_FROM_OTHERS = 4
"""trials: the best of other features, for the best of all may be so by chance"""
_FROM_NEIGHBOURS = 3
_LATEST = 5
"""earlier searches, the latest that have trials, are all that is looked at: whatever was good came again in these"""
_DISTILL, _L2_SP = 0.5, 1e-2
"""of the second trial that starts from the champion, where the space lets them be chosen"""


@dataclass(frozen=True)
class Start:
    """A point that is tried before the sampler draws any."""

    point: dict[str, Any]
    origin: str
    """`champion`, `ledger`, `similar` or `default`"""
    initial_model: str | None = None
    """a model that the trial starts from: from all that it trained where the trial trains the same, else its head"""


def starting_points(store: Store, request: SearchRequest, space: Space) -> list[Start]:
    """The points to try first, without repetition; the default alone where nothing is known or wanted."""
    candidates: list[Start] = []
    if request.warm_start:
        candidates += _champion(store, request, space)
        candidates += [
            Start(point, "ledger")
            for result in winners(_earlier(store, request, request.dataset))
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
        ranked = _ranked(_earlier(store, request, neighbour.name))
        if not ranked:
            continue
        point = space.project(TrialConfig.model_validate(ranked[0].config))
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
    config = TrialConfig.model_validate(version.lineage.config)
    # As it was trained; and held back, with the new images somewhat in front.
    weight = space.parameters.get("new_weight")
    held = config.with_(
        distill=_DISTILL,
        new_weight=weight.middle() if isinstance(weight, Float) else 1.0,
        l2_sp=_L2_SP if config.unfreeze else 0.0,
    )
    points = [space.project(each) for each in (config, held)]
    return [Start(point, "champion", version.id) for point in points if point is not None]


def winners(results: Iterable[TrialResult]) -> list[TrialResult]:
    """The best of trials, and the best of other features: what a later search begins with."""
    ranked = _ranked(results)
    best = ranked[:_FROM_LEDGER]
    known = {_features(winner) for winner in best}
    others: list[TrialResult] = []
    for result in ranked[_FROM_LEDGER:]:
        if (features := _features(result)) not in known and len(others) < _FROM_OTHERS:
            known.add(features)
            others.append(result)
    return best + others


def _features(result: TrialResult) -> tuple[Any, ...]:
    return tuple(result.config.get(name) for name in FEATURES)


def _earlier(store: Store, request: SearchRequest, dataset: str) -> list[TrialResult]:
    """The trials of the latest other searches on a data set, for the same metric; of its own by the same costs, too."""
    others = {key.split("/")[1] for key in store.list(keys.SEARCHES)} - {request.id}
    asked = records.read_many(store, map(keys.search_request, sorted(others)), SearchRequest)
    comparable = [
        key.split("/")[1]
        for key, other in asked.items()
        if (other.dataset, other.metric) == (dataset, request.metric)
        and (other.costs == request.costs or dataset != request.dataset)
    ]
    states = records.read_many(store, map(keys.search_state, comparable), SearchState)
    submitted = {state.search: state.created_at.timestamp() for state in states.values()}
    ledgers: list[list[TrialResult]] = []
    for search in sorted(comparable, key=lambda search: (submitted.get(search, 0.0), search), reverse=True):
        if len(ledgers) == _LATEST:
            break
        if ledger := records.read_all(store, keys.trials(search), TrialResult):
            ledgers.append(ledger)
    return list(chain.from_iterable(ledgers))


def _ranked(results: Iterable[TrialResult]) -> list[TrialResult]:
    """Those that left a model, the best first, each configuration once."""
    usable = (r for r in results if r.value is not None and r.weights_key is not None)
    ranked = sorted(usable, key=lambda r: r.value or 0.0, reverse=True)
    distinct = {TrialConfig.model_validate(r.config).digest: r for r in reversed(ranked)}
    return sorted(distinct.values(), key=lambda r: r.value or 0.0, reverse=True)
