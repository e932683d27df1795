"""Gathering what became of a deployment: champions, drift, searches, decisions, and sums by month.

Cheap however long it has been served: captured requests are counted from listings and the ends of some files, labels
from their keys, and with `since` nothing that is older is read but what tells who was champion then.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from datetime import UTC, datetime, timedelta

from autovision.evaluation import wilson
from autovision.records.base import now
from autovision.records.deployments import Decision, DecisionKind, Deployment, DetectorVerdict, DriftReport
from autovision.records.history import (
    DriftWindow,
    GroupFigure,
    History,
    ModelFigures,
    Reign,
    SearchFacts,
    ToldDecision,
)
from autovision.records.models import Evaluation, Interval, ModelVersion
from autovision.records.searches import SearchRequest, SearchState
from autovision.registry import deployments, months, reigns, standing
from autovision.registry.searches import all_searches
from autovision.store import keys, records
from autovision.store.protocol import Store

_DAY = timedelta(days=1)
_AT_ONCE = 100
"""older decisions that are read together while the one is looked for that made the first champion"""


def gather(
    store: Store, name: str, *, since: datetime | None = None, clock: Callable[[], datetime] = now
) -> History:
    """What became of a deployment since a moment (None: since it was made). Raises `NotFound`.

    Requests belong to the time at which their file was written, a few seconds after the last of them. Labels of a
    request whose id does not tell its time belong to the time at which they were stored.
    """
    deployment, until = deployments.get(store, name), clock()
    after = since or datetime.min.replace(tzinfo=UTC)
    before, decided = _decisions(store, deployment, after)
    found, notes = reigns.checked(reigns.reigns([*before, *decided], deployment.created_at), deployment)
    figures = _figures(store, found)
    searches = _searches(store, deployment.name, after, decided, figures)
    windows = _windows(_reports(store, name, after), decided)
    requests, counted = months.requests(store, name, after)
    labelled = months.labelled(store, name, after, until, begun=deployment.created_at - _DAY)
    moments = [
        deployment.created_at,
        *(each.created_at for each in decided),
        *(each.end for each in windows),
        *(each.at for each in searches),
    ]
    begin, end = max(min(moments), after), max([*moments, until])
    gone = [model for model in dict.fromkeys(each.model for each in found) if model not in figures]
    return History(
        deployment=name,
        dataset=deployment.dataset,
        uri=store.uri,
        since=begin,
        until=max(begin, end),
        champion=deployment.model,
        challenger=deployment.rollout.model if deployment.rollout else None,
        metric=next(
            (figures[each.model].metric for each in reversed(found) if each.model in figures), "accuracy"
        ),
        reigns=tuple(each for each in found if each.until is None or each.until >= begin),
        models=figures,
        windows=windows,
        decisions=tuple(_told(each, made={reign.decision for reign in found}) for each in decided),
        searches=searches,
        months=months.sums((begin, max(begin, end)), found, windows, searches, requests, labelled),
        requests_counted=counted,
        notes=(*notes, *(f"the model {model} is no longer in the store" for model in gone)),
        standing=standing.standing(store, deployment),
    )


# ---------------------------------------------------------------------------------------- what is stored


def _decisions(
    store: Store, deployment: Deployment, since: datetime
) -> tuple[list[Decision], list[Decision]]:
    """The latest decision of before that made a champion, if there is one, and all decisions since then."""
    prefix = keys.decisions(deployment.name)
    old: list[str] = []
    new: list[str] = []
    for key in store.list(prefix):
        if key.endswith(".json"):
            (old if (at := keys.time_of(key)) is not None and at < since else new).append(key)
    found = {each.id: each for each in records.read_many(store, new, Decision).values()}
    # Whoever made it may have been killed before it was written down.
    if (last := deployment.decided) is not None and last.created_at >= since:
        found.setdefault(last.id, last)
    before = [last] if last is not None and _settles(last, since) else _champion_at(store, old)
    return before, [found[which] for which in sorted(found)]


def _settles(last: Decision, since: datetime) -> bool:
    """Whether the latest decision that changed a deployment tells who was champion since then."""
    return last.created_at < since and reigns.made_champion(last) is not None


def _champion_at(store: Store, old: Sequence[str]) -> list[Decision]:
    """The latest of old decisions that made a champion."""
    for end in range(len(old), 0, -_AT_ONCE):
        some = records.read_many(store, old[max(0, end - _AT_ONCE) : end], Decision)
        for decision in reversed([*some.values()]):
            if reigns.made_champion(decision) is not None:
                return [decision]
    return []


def _reports(store: Store, name: str, since: datetime) -> list[DriftReport]:
    wanted = (
        key
        for key in store.list(keys.reports(name))
        if key.endswith(".json") and ((at := keys.time_of(key)) is None or at >= since)
    )
    found = records.read_many(store, wanted, DriftReport).values()
    return sorted(found, key=lambda each: (each.window_end, each.id))


# ------------------------------------------------------------------------------------------------ models


def _figures(store: Store, found: Sequence[Reign]) -> dict[str, ModelFigures]:
    wanted = dict.fromkeys(each.model for each in found)
    read = records.read_many(store, map(keys.model, wanted), ModelVersion).values()
    return {each.id: _of_model(each) for each in read}


def _of_model(version: ModelVersion) -> ModelFigures:
    test = version.metrics["test"]
    return ModelFigures(
        model=version.id,
        dataset=test.dataset,
        search=version.lineage.search,
        parents=version.lineage.parents,
        registered_at=version.created_at,
        n=test.n,
        accuracy=test.accuracy,
        metric=version.metric,
        value=_value(test, version.metric),
        recall={
            name: _recall(test, index, name)
            for index, name in enumerate(version.classes)
            if name in test.per_class_recall
        },
        subgroups={
            name.partition(":")[2]: GroupFigure(
                value=each.accuracy.value, low=each.accuracy.low, high=each.accuracy.high, n=each.n
            )
            for name, each in version.metrics.items()
            if name.startswith("test:")
        },
    )


def _value(test: Evaluation, metric: str) -> Interval | None:
    """The metric with its interval. The one of `accuracy` and its like does not shrink on a set without errors."""
    if metric in ("accuracy", "balanced_accuracy", "f1", "auroc"):
        found: Interval | None = getattr(test, metric)
        return found
    return test.bootstrap.get(metric)


def _recall(test: Evaluation, index: int, name: str) -> GroupFigure:
    value = test.per_class_recall[name]
    if not test.confusion:
        return GroupFigure(value=value, low=None, high=None, n=None)
    n = sum(test.confusion[index])
    interval = wilson(test.confusion[index][index], n)
    return GroupFigure(value=value, low=interval.low, high=interval.high, n=n)


# ----------------------------------------------------------------------------- windows, searches, decisions


def _windows(reports: Sequence[DriftReport], decided: Sequence[Decision]) -> tuple[DriftWindow, ...]:
    led = {
        each.numbers.get("report"): each.subject
        for each in reversed(decided)
        if each.kind is DecisionKind.RETRAIN and each.accepted and _by_alarm(each)
    }
    found: list[DriftWindow] = []
    harm: dict[str, bool] = {}
    for report in reversed(reports):
        if report.accuracy is not None:
            fewer = report.accuracy.high < report.accuracy.expected
            harm[report.model] = fewer or any(e.alarm for e in report.detectors if e.name == "accuracy")
        found.append(
            DriftWindow(
                report=report.id,
                model=report.model,
                start=report.window_start,
                end=report.window_end,
                n=report.n,
                alarm=report.alarm,
                detectors=report.detectors or (_only(report),),
                estimate=report.estimate,
                accuracy=report.accuracy,
                notes=report.notes,
                harm=harm.get(report.model) if report.alarm else None,
                search=led.get(report.id),
            )
        )
    return tuple(reversed(found))


def _by_alarm(decision: Decision) -> bool:
    """Whether what was seen in windows spoke for a search, and not volume or schedule alone."""
    spoke = {decision.numbers.get("trigger"), *decision.numbers.get("reasons", ())}
    return bool(spoke & {"drift", "accuracy"})


def _only(report: DriftReport) -> DetectorVerdict:
    """The verdict of a report from before there were several detectors."""
    return DetectorVerdict(
        name="input",
        alarm=report.alarm,
        **report.model_dump(include={"score", "threshold", "p_value", "alpha", "n", "reference_n"}),
    )


def _searches(
    store: Store,
    name: str,
    since: datetime,
    decided: Sequence[Decision],
    figures: Mapping[str, ModelFigures],
) -> tuple[SearchFacts, ...]:
    by_search = {
        each.subject: each.id for each in decided if each.kind is DecisionKind.RETRAIN and each.accepted
    }
    origins = {each.search for each in figures.values()}
    return tuple(
        _of_search(
            request,
            state,
            by_search.get(request.id),
            state.model in figures and state.model != request.parent_model,
        )
        for request, state in all_searches(store)
        if state.created_at >= since and (request.deployment == name or request.id in origins)
    )


def _of_search(
    request: SearchRequest, state: SearchState, decision: str | None, became_champion: bool
) -> SearchFacts:
    return SearchFacts(
        search=request.id,
        at=state.created_at,
        dataset=f"{request.dataset}@{request.dataset_version}",
        status=state.status,
        reason=request.reason,
        decision=decision,
        spent_s=state.spent_s,
        budget_s=request.budget_s if state.budget_s is None else state.budget_s,
        trials=state.trials,
        cost=state.cost,
        currency=state.currency,
        model=state.model,
        became_champion=became_champion,
    )


def _told(decision: Decision, made: Set[str | None]) -> ToldDecision:
    return ToldDecision(
        at=decision.created_at,
        waits=not decision.accepted
        and (decision.kind is DecisionKind.RETRAIN or decision.numbers.get("waits") is True),
        made_champion=decision.id in made,
        **decision.model_dump(include={"id", "kind", "accepted", "what", "why", "subject"}),
    )
