"""Retraining as an act: what is known is gathered, and an accepted verdict becomes a data set version and a request."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from autovision.dataset import catalog, importer, manifest
from autovision.dataset.importer import SourceImage
from autovision.dataset.relabel import relabel
from autovision.errors import InvalidInput
from autovision.model.version import read_version
from autovision.records.datasets import DatasetVersion, Split
from autovision.records.deployments import Deployment, DriftReport
from autovision.records.retraining import RetrainingState
from autovision.records.searches import SearchRequest, SearchState, SearchStatus
from autovision.registry.searches import all_searches
from autovision.retraining.accuracy import Share
from autovision.retraining.evaluation import counts_from
from autovision.retraining.history import History, Searches
from autovision.retraining.join import Joined
from autovision.retraining.memory import Memory
from autovision.retraining.snapshot import Snapshot
from autovision.space.config import TrialConfig
from autovision.space.continual import for_successor
from autovision.store import captures, keys, labels, records
from autovision.store.protocol import Store
from autovision.store.remembered import Remembered
from autovision.trial.likeness import Likeness
from autovision.trial.splits import load_splits

_CAPTURED = "capture "
"""before the request's id, as the source of an image of a data set"""
_KEPT = (
    *("metric", "costs", "objectives"),
    *("licenses", "max_latency_ms", "max_memory_mb", "max_size_mb", "runtime"),
    *("max_cost", "prices", "patience_s", "converged", "workers_per_trial", "priority"),
    *("sampler", "scheduler", "refit", "soup", "confirm"),
)
"""what the search of the champion was held to, and how it worked: its re-searches are and do, too"""


@dataclass(frozen=True)
class Situation:
    """What the policy is asked about, and what an act would need."""

    snapshot: Snapshot
    joined: Joined | None
    """what a search would learn from; None: it was remembered only how much that is"""
    version: DatasetVersion
    """the latest of the deployment's data set"""


def observe(
    store: Store,
    deployment: Deployment,
    clock: Callable[[], datetime],
    state: RetrainingState | None = None,
    *,
    everywhere: Searches | None = None,
    memory: Memory | None = None,
    reports: Reports | None = None,
    afresh: bool = False,
) -> Situation:
    """Gather everything that the retraining policy looks at.

    Args:
        state: how the retraining stands; None: as if it had never been evaluated.
        everywhere: all searches, if they are known.
        memory: of earlier looks; None: everything is read.
        reports: the same of reports.
        afresh: read all that an act rests on, whatever is remembered.
    """
    version = catalog.latest(store, deployment.dataset)
    everywhere = all_searches(store) if everywhere is None or afresh else everywhere
    searched = _searched(store, version, everywhere)
    history = History.of(everywhere, deployment.name)
    seen = (memory or Memory()).look(store, deployment, searched, since=history.answered_at, afresh=afresh)
    report, policy = latest_report(store, deployment, reports), deployment.policy
    looks = policy.accuracy_floor is not None or policy.accuracy_margin is not None
    failures = history.failures
    snapshot = Snapshot(
        now=clock(),
        report=report,
        answered=report is not None and history.answers(report),
        labels=seen.labels,
        images=searched.n,
        alike=seen.alike,
        labels_per_class=seen.per_class,
        classes=version.classes,
        last_search_at=history.answered_at,
        running_search=history.running,
        spent=history.spent,
        failures=len(failures),
        failed_at=failures[0][1].updated_at if failures else None,
        in_vain=history.in_vain(deployment.model),
        measured=seen.measured if looks else None,
        held_out=_held_out(store, deployment) if looks else None,
        ask=state.ask if state else None,
        slots_since=counts_from(state, policy) if state else None,
    )
    return Situation(snapshot, seen.joined, version)


def _held_out(store: Store, deployment: Deployment) -> Share | None:
    """The champion's accuracy on its test images; None where nobody measured it."""
    if deployment.model is None:
        return None
    found = read_version(store, deployment.model).metrics.get(Split.TEST)
    return None if found is None else Share(found.n, round(found.accuracy.value * found.n))


def _searched(
    store: Store, latest: DatasetVersion, searches: Sequence[tuple[SearchRequest, SearchState]]
) -> DatasetVersion:
    """The newest version that a search was asked for that did not fail; the latest one if there is no search at all.

    A controller that is killed between making a version and asking for its search finds labels that no search
    has seen, and makes the same version and the request again.
    """
    asked = [
        request.dataset_version
        for request, state in searches
        if request.dataset == latest.name and state.status is not SearchStatus.FAILED
    ]
    if not asked or max(asked) == latest.version:
        return latest
    return catalog.get(store, f"{latest.name}@{max(asked)}")


class Reports(Remembered[DriftReport, tuple[str, datetime]]):
    """Which model reports are of, and when their windows end: each is read once."""

    def __init__(self) -> None:
        super().__init__(DriftReport, lambda report: (report.model, report.window_end))


def latest_report(store: Store, deployment: Deployment, reports: Reports | None = None) -> DriftReport | None:
    """The report of the latest window about the model that is served now."""
    found = (reports or Reports()).read_all(store, keys.reports(deployment.name))
    own = [(ends, key) for key, (model, ends) in found.items() if model == deployment.model]
    return records.read(store, max(own)[1], DriftReport) if own else None


def build(
    store: Store,
    deployment: Deployment,
    situation: Situation,
    *,
    reason: str,
    seed: int,
    nonce: str | None = None,
) -> SearchRequest:
    """The next data set version, old and new images together, and the request that searches on it.

    The new images become the data set's: it outlives what is captured. Each split gets its share of them, of each class
    in each subgroup that the deployment declares. So does test, the golden set, which nothing is ever trained on.
    Labels of captured images that it has had before are as annotators agree on by now. What is searched is the
    deployment's space and what `space.continual` adds to it. Raises `Conflict` if somebody else has made another
    version meanwhile.

    `nonce` makes it another search than an otherwise equal one; None: that of the situation's report.
    Doing it again for the same situation gives the same version and the same request.
    """
    joined = situation.joined
    if joined is None:
        raise InvalidInput(
            "a search is built on what was just read, not on what was remembered; observe again"
        )
    sources = [
        SourceImage(
            digest=capture.image,
            source=f"{_CAPTURED}{capture.request_id}",
            label=label.label,
            confidence=label.confidence,
            metadata=dict(capture.metadata),
        )
        for capture, label in joined.rows
    ]
    captures.adopt_images(store, (capture for capture, _ in joined.rows))
    alike = _likeness(store, deployment)
    version = importer.extend(
        store,
        situation.version,
        sources,
        seed=seed,
        stratify_by=_stratified_by(sources, deployment.policy.subgroup),
        alike=alike,
    )
    version = _revised(store, version, joined)
    report = situation.snapshot.report
    before = _search_of_champion(store, deployment)
    return SearchRequest(
        dataset=version.name,
        dataset_version=version.version,
        dataset_digest=version.digest,
        space=_space(store, deployment, version),
        budget_s=deployment.policy.budget_s,
        max_trials=deployment.policy.max_trials,
        seed=seed,
        parent_model=deployment.model,
        deployment=deployment.name,
        reason=reason,
        nonce=(report.id if report else "") if nonce is None else nonce,
        margin=deployment.gate_policy.margin,
        subgroup=deployment.policy.subgroup,
        robustness_margin=deployment.gate_policy.robustness_margin,
        robustness_images=deployment.gate_policy.robustness_images,
        **({name: getattr(before, name) for name in _KEPT} if before else {}),
    )


def _revised(store: Store, version: DatasetVersion, joined: Joined) -> DatasetVersion:
    """The version with what annotators agree on by now of captured images that it has; they keep their splits.

    What a review said of an image of the data set stands.
    """
    if not joined.known:
        return version
    reviewed = {word.request_id for word in labels.corrections(store, version.name)}
    own = {
        row.image: row
        for row in manifest.read(store, version)
        if row.source.startswith(_CAPTURED) and row.image not in reviewed
    }
    said = {
        capture.image: label
        for capture, label in joined.known
        if capture.image in own and own[capture.image].label != label.label
    }
    try:
        return relabel(store, version, said)
    except InvalidInput:
        return version  # a class would be left without an image


def _space(store: Store, deployment: Deployment, version: DatasetVersion) -> dict[str, Any]:
    """A deployment's space; with what only a successor can choose, if there is a champion."""
    if deployment.model is None:
        return deployment.space
    train = load_splits(store, version.id, deployment.model).train
    new = 0 if train.new is None else int(train.new.sum())
    return for_successor(deployment.space, old=len(train) - new, new=new)


def _stratified_by(sources: Sequence[SourceImage], subgroup: str | None) -> str | None:
    """The column of the subgroups, if any new image has it."""
    return subgroup if any(subgroup in source.metadata for source in sources) else None


def _likeness(store: Store, deployment: Deployment) -> importer.Alike:
    """By the champion's backbone as it was before training, whose features the re-search needs anyway."""
    if deployment.model is None:
        return importer.nothing_else
    config = TrialConfig.model_validate(read_version(store, deployment.model).lineage.config)
    return Likeness(store, config)


def _search_of_champion(store: Store, deployment: Deployment) -> SearchRequest | None:
    """None: there is no champion."""
    if deployment.model is None:
        return None
    search = read_version(store, deployment.model).lineage.search
    return records.read(store, keys.search_request(search), SearchRequest)
