"""Searches as records: submit, find, stop, list. Nothing here runs one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from autovision import metrics
from autovision.dataset import catalog
from autovision.decisions import check_measure
from autovision.errors import Conflict, InvalidInput, NotFound, near
from autovision.model import licenses as license_names
from autovision.model import weight_catalog
from autovision.model.version import read_version
from autovision.records.base import now
from autovision.records.datasets import DatasetVersion, Split
from autovision.records.models import FinishRecord
from autovision.records.runtimes import AUTO, EVALUATED, RUNTIMES
from autovision.records.searches import MOST_PRIORITY, SearchRequest, SearchState, SearchStatus
from autovision.records.trials import TrialResult
from autovision.registry.searches import all_searches
from autovision.search.multiobjective.objectives import MEASURED, check_objectives
from autovision.search.sampling import samplers
from autovision.search.schedulers import scheduler_of
from autovision.space import Space
from autovision.space.config import TrialConfig
from autovision.space.named import backbones_of, weights_of
from autovision.space.parameters import Constant
from autovision.store import keys, lease, records
from autovision.store.protocol import KeyNotFound, Store

GOING = (SearchStatus.QUEUED, SearchStatus.RUNNING)
LEFT = (SearchStatus.STOPPED, SearchStatus.FAILED)
"""of what may be gone on with though it is over"""
LIMITS = ("max_latency_ms", "max_memory_mb", "max_size_mb")
"""what a request may demand of the model; see `SearchRequest`"""
_MEASURED_LIMITS = ("max_latency_ms", "max_memory_mb")
_OF_A_MODEL = (AUTO, "openvino-int8")
"""of what is no runtime before there is a model"""


def make_request(
    store: Store,
    dataset: str,
    space: Space,
    *,
    budget_s: float,
    licenses: Iterable[str] = (),
    **options: Any,
) -> SearchRequest:
    """A checked request for a search on the latest (`name`) or a given (`name@3`) version of a data set.

    Args:
        licenses: that the backbones' weights may have, in any spelling; empty: any.

    Raises:
        InvalidInput: the budget, the metric, an objective, the runtime, the sampler, a backbone or the data set cannot
            be searched with, the metric has no value for validation, or no backbone has weights under one of the
            licences.
        NotFound: no such data set, or no imported weights of a name in the space.
    """
    if not 0 < budget_s < float("inf"):
        raise InvalidInput(
            f"budget of {budget_s:g} s: a search needs a finite time above 0; try --budget-s 120"
        )
    max_trials = options.get("max_trials")
    if max_trials is not None and max_trials < 1:
        raise InvalidInput(f"max_trials={max_trials}: a search needs at least one trial")
    workers = options.get("workers_per_trial", 1)
    if workers < 1:
        raise InvalidInput(f"workers_per_trial={workers}: a trial needs at least one worker")
    if abs(priority := options.get("priority", 0)) > MOST_PRIORITY:
        raise InvalidInput(
            f"priority={priority}: give a whole number from {-MOST_PRIORITY} to {MOST_PRIORITY}; higher goes first"
        )
    for name in LIMITS:
        if (limit := options.get(name)) is not None and not 0 < limit < float("inf"):
            raise InvalidInput(f"{name}={limit:g}: a limit is a finite number above 0; leave it out for none")
    if "scheduler" in options:
        scheduler_of(options["scheduler"])
    for name in ("patience_s", "max_cost"):
        if (bound := options.get(name)) is not None and not 0 < bound < float("inf"):
            raise InvalidInput(
                f"{name}={bound:g}: it has to be a finite number above 0; leave it out for none"
            )
    if options.get("max_cost") is not None and options.get("prices") is None:
        raise InvalidInput(
            f"max_cost={options['max_cost']:g}: nothing tells what the cluster costs; give a table of prices, with "
            "--prices or AUTOVISION_PRICES"
        )
    if options.get("costs") is not None:
        options.setdefault("metric", metrics.COST)
    metrics.check_metric(options.get("metric", "accuracy"))
    objectives = options["objectives"] = check_objectives(options.get("objectives", ()))
    check_runtime(
        options.get("runtime", EVALUATED),
        measures=bool(MEASURED & set(objectives))
        or any(options.get(name) is not None for name in _MEASURED_LIMITS),
    )
    samplers.check(options.get("sampler", "tpe"), space, 1 + len(objectives))
    check_backbones(space)
    allowed = license_names.parse(licenses)
    check_weights(store, space, allowed)
    version = catalog.get(store, dataset)
    check_measure(
        options.get("metric", "accuracy"),
        options.get("costs"),
        version.classes,
        multi_label=version.multi_label,
    )
    for split in (Split.TRAIN, Split.VALIDATION, Split.TEST):
        if not (version.images.get(split) or sum(version.counts.get(split, {}).values())):
            raise InvalidInput(
                f"data set {version.id} has no image in its {split} split; import more images, "
                "or assign splits in a manifest"
            )
    check_defined(options.get("metric", "accuracy"), version)
    check_continual(space, version, options.get("parent_model"))
    return SearchRequest(
        dataset=version.name,
        dataset_version=version.version,
        dataset_digest=version.digest,
        space=space.to_json(),
        budget_s=budget_s,
        licenses=allowed,
        **options,
    )


def check_runtime(name: str, *, measures: bool) -> None:
    """Raises `InvalidInput` for a runtime that nothing can be measured on before there is a model.

    Args:
        measures: whether anything is measured on it.
    """
    known = [EVALUATED, *(runtime for runtime in RUNTIMES if runtime not in _OF_A_MODEL)]
    if name in _OF_A_MODEL:
        raise InvalidInput(
            f"runtime {name!r} is chosen, or made, for a model that is there; for one that is searched for name one of "
            f"{', '.join(known)}"
        )
    if name not in known:
        raise InvalidInput(f"no runtime {name!r}; use one of {', '.join(known)}{near(name, known)}")
    if not measures and name != EVALUATED:
        raise InvalidInput(
            f"runtime {name!r} is what latency and memory are measured on, and the search looks at neither; give it "
            "--max-latency-ms, --max-memory-mb or --objective latency_ms, or leave the runtime out"
        )


def check_continual(space: Space, version: DatasetVersion, parent_model: str | None) -> None:
    """Raises `InvalidInput` where a space names what has no effect without a champion, or without anything new."""
    lacking = {
        "distill": None if parent_model else "there is no champion to learn from",
        "new_weight": None
        if parent_model or version.parent
        else f"nothing in {version.id} is new to anybody",
    }
    for name, why in lacking.items():
        named = space.parameters.get(name, Constant(getattr(TrialConfig(), name)))
        if why is not None and named != Constant(getattr(TrialConfig(), name)):
            raise InvalidInput(
                f"the space {space.name!r} names {name} = {named!r}, but {why}; leave it out: a re-search, which has a "
                "champion, adds it by itself"
            )


def check_defined(metric: str, version: DatasetVersion) -> None:
    """Raises `InvalidInput` for a metric that has no value on the validation images, by which trials are ranked.

    What looks at how images are ranked needs some with and some without each class that counts: the positive one of
    two, else all of them (see `metrics.ranked_columns`).
    """
    if metric not in metrics.RANKING and metrics.required_precision(metric) is None:
        return
    counts = version.counts.get(Split.VALIDATION, {})
    n = version.images.get(Split.VALIDATION) or sum(counts.values())
    positive = version.positive_class if len(version.classes) == 2 else None
    ranked = version.classes if positive is None else (positive,)
    one_sided = [name for name in ranked if counts.get(name, 0) in (0, n)]
    if one_sided:
        others = f", and so with {len(one_sided) - 1} other classes" if len(one_sided) > 1 else ""
        raise InvalidInput(
            f"{metric} has no value on the validation split of {version.id}: {counts.get(one_sided[0], 0)} of its {n} "
            f"images are of the class {one_sided[0]!r}{others}, and it takes some that are and some that are not; "
            "import more images of it, give the splits other fractions, assign splits in a manifest, or rank by "
            "another metric, such as balanced_accuracy"
        )


def check_backbones(space: Space) -> None:
    """Raises `UnknownBackbone` for a name that timm does not know, with the near ones."""
    from autovision.model import backbone as backbones  # timm: seconds, and listing searches needs none of it

    for name in backbones_of(space):
        backbones.check_name(name)


def check_weights(store: Store, space: Space, allowed: tuple[str, ...]) -> None:
    """Raises `NotFound` for imported weights that are not there, and `InvalidInput` if no backbone is allowed."""
    for weights in weights_of(space):
        if (name := weight_catalog.name_of(weights)) is not None:
            weight_catalog.get(store, name)
    if allowed:
        from autovision.search.feasibility import unlicensed_backbones  # timm, as above

        unlicensed_backbones(store, space, allowed)


def submit(
    store: Store, request: SearchRequest, at: datetime | None = None, by: str | None = None
) -> SearchState:
    """Put a request into the queue; the same request again is the search that it already is.

    Args:
        at: when it was asked for; None: now.
        by: name of the token that it was asked for with; None: on the store itself.
    """
    records.create_or_read(store, keys.search_request(request.id), request)
    at = at or now()
    state = SearchState(search=request.id, submitted_by=by, created_at=at, updated_at=at)
    return records.create_or_read(store, keys.search_state(request.id), state)[0]


def get(store: Store, search: str) -> tuple[SearchRequest, SearchState]:
    """A search by its id. Raises `NotFound`, with the near ids."""
    try:
        request = records.read(store, keys.search_request(search), SearchRequest)
        return request, records.read(store, keys.search_state(search), SearchState)
    except KeyNotFound:
        known = [request.id for request, _ in all_searches(store)]
        raise NotFound(
            f"no search {search!r} in {store.uri}{near(search, known)}; `autovision search list` shows them"
        ) from None


def trials(store: Store, search: str) -> list[TrialResult]:
    """The ledger of a search, in the order in which its trials were begun."""
    return sorted(
        records.read_all(store, keys.trials(search), TrialResult), key=lambda r: (r.number, r.trial)
    )


def request_stop(store: Store, search: str) -> SearchState:
    """Ask whoever runs a search to stop it; one that nobody runs, or that waits, is marked as stopped.

    Whoever waits with it, is about to run it, or takes it up from the queue, leaves it then.
    """
    get(store, search)

    def change(state: SearchState) -> SearchState | None:
        if state.status.terminal:
            return None
        # One that is said to run has lost its process if nobody has its lease.
        idle = state.status is not SearchStatus.RUNNING or not lease.is_held(store, f"search-{search}")
        status = SearchStatus.STOPPED if idle else state.status
        return state.with_(stop_requested=not idle, status=status, updated_at=now())

    return records.update(store, keys.search_state(search), SearchState, change)


def put_back(store: Store, search: str) -> SearchState:
    """Put a search that was stopped, or has failed, into the queue again; one that waits or runs is left as it is.

    Raises `NotFound`, `InvalidInput` for one that is finished, and `Conflict` like `check_alone`.
    """
    request, before = get(store, search)
    if before.status in LEFT:
        check_alone(store, request)

    def change(state: SearchState) -> SearchState | None:
        if state.status is SearchStatus.FINISHED:
            raise InvalidInput(
                f"search {search!r} is finished; give it more seconds to go on with it, or submit another one"
            )
        if not stop_asked(state) and state.status is not SearchStatus.FAILED:
            return None
        if state.status is SearchStatus.RUNNING and lease.is_held(store, f"search-{search}"):
            raise Conflict(f"search {search!r} is about to stop; resume it when it has")
        return state.with_(status=SearchStatus.QUEUED, stop_requested=False, error=None, updated_at=now())

    return records.update(store, keys.search_state(search), SearchState, change)


def check_alone(store: Store, request: SearchRequest) -> None:
    """Raises `Conflict` for a re-search whose deployment has another one that waits or runs: there is one at a time.

    To be asked before one is gone on with that was stopped or has failed: another may have been begun in its place.
    """
    if request.deployment is None or request.parent_model is None:
        return
    for other, state in all_searches(store):
        if (
            other.id != request.id
            and other.deployment == request.deployment
            and other.parent_model is not None
            and state.status in GOING
        ):
            raise Conflict(
                f"deployment {request.deployment!r} has another re-search, {other.id!r}, which is {state.status}; wait "
                f"for its end, or stop it with `autovision search stop {other.id}`, before you resume {request.id!r}"
            )


def stop_asked(state: SearchState) -> bool:
    """Whether somebody stopped a search, or asked its process to stop it and that did not come to it any more."""
    return state.status is SearchStatus.STOPPED or state.stop_requested


def granted_s(request: SearchRequest, state: SearchState) -> float:
    """Wall seconds that a search may use in all: its budget, or what that was extended to."""
    return request.budget_s if state.budget_s is None else state.budget_s


def granted_trials(request: SearchRequest, state: SearchState) -> int | None:
    """Trials that a search may begin in all; None: as many as the seconds allow."""
    return request.max_trials if state.max_trials is None else state.max_trials


def granted_cost(request: SearchRequest, state: SearchState) -> float | None:
    """What a search may cost in all; None: nothing limits that."""
    return request.max_cost if state.max_cost is None else state.max_cost


def set_state(store: Store, search: str, **changes: Any) -> SearchState:
    """Change fields of a search's state."""

    def change(state: SearchState) -> SearchState:
        return state.with_(**changes, updated_at=now())

    return records.update(store, keys.search_state(search), SearchState, change)


def told(request: SearchRequest, state: SearchState) -> str:
    """A finished search in a line."""
    best = f"{request.metric} {state.best_value:.3f} on validation" if state.best_value is not None else ""
    stays = ": no candidate is better than the champion" if state.model == request.parent_model else ""
    return f"search {request.id}: {state.trials} trials, {best}, model {state.model}{stays}"


def summary(request: SearchRequest, state: SearchState) -> Mapping[str, Any]:
    """A search in a few plain figures, for lists."""
    return {
        "search": request.id,
        "dataset": f"{request.dataset}@{request.dataset_version}",
        "status": str(state.status),
        "priority": request.priority,
        "trials": state.trials,
        "best": state.best_value,
        "spent_s": round(state.spent_s, 1),
        "budget_s": granted_s(request, state),
        "cost": state.cost,
        "currency": state.currency or None,
        "model": state.model,
        "reason": request.reason,
        "error": state.error,
    }


def finished(store: Store, search: str) -> FinishRecord | None:
    """How a search's model was made, the last time that it was finished; None: it has none."""
    state = get(store, search)[1]
    if state.model is None:
        return None
    lineage = read_version(store, state.model).lineage
    found = records.read_all(store, keys.finishes(search), FinishRecord)
    # Another trial of the search may have been registered besides.
    if lineage.search != search:
        own = [record for record in found if record.candidate == "unchanged"]
    else:
        own = [r for r in found if lineage.trial in (r.trials[0], r.candidate)]
    return max(own, key=lambda record: record.created_at, default=None)
