"""Retraining as an act: what is known is gathered, and an accepted verdict becomes a data set version and a request."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from autovision.dataset import catalog, importer, manifest
from autovision.dataset.importer import SourceImage
from autovision.labelling.consensus import consensus
from autovision.model.version import read_version
from autovision.records.datasets import DatasetVersion
from autovision.records.deployments import Capture, Deployment, DriftReport
from autovision.records.searches import SearchRequest, SearchState, SearchStatus
from autovision.registry.searches import all_searches
from autovision.retraining.join import Joined, join
from autovision.retraining.policy import Snapshot
from autovision.space.config import TrialConfig
from autovision.space.continual import for_successor
from autovision.store import captures, keys, labels, records
from autovision.store.protocol import Store
from autovision.trial.likeness import Likeness


@dataclass(frozen=True)
class Situation:
    """What the policy is asked about, and what an act would need."""

    snapshot: Snapshot
    joined: Joined
    version: DatasetVersion
    """the latest of the deployment's data set"""


def observe(store: Store, deployment: Deployment, clock: Callable[[], datetime]) -> Situation:
    """Gather everything that the retraining policy looks at."""
    version = catalog.latest(store, deployment.dataset)
    everywhere = all_searches(store)
    searched = _searched(store, version, everywhere)
    known = {row.image for row in manifest.read(store, searched)} | set(searched.left_out)
    agreed = consensus(labels.read(store, deployment.name)).agreed
    seen = (
        _as_kept(store, capture) if capture.request_id in agreed and capture.image not in known else capture
        for capture in captures.read(store, deployment.name).captures
    )
    joined = join(seen, agreed, known_images=known)
    # A search that failed has answered its alarm, too: asking again would give the same failure, pass after pass.
    searches = [pair for pair in everywhere if pair[0].deployment == deployment.name]
    report = latest_report(store, deployment)
    under_way = [s for s in searches if s[1].status in (SearchStatus.QUEUED, SearchStatus.RUNNING)]
    re_searches = [state.created_at for request, state in searches if request.parent_model is not None]
    snapshot = Snapshot(
        now=clock(),
        report=report,
        answered=report is not None and any(request.nonce == report.id for request, _ in searches),
        labels=len(joined.rows),
        labels_per_class=Counter(name for _, label in joined.rows for name in label.labels),
        last_search_at=max(re_searches, default=None),
        running_search=under_way[0][0].id if under_way else None,
    )
    return Situation(snapshot, joined, version)


def _as_kept(store: Store, capture: Capture) -> Capture:
    """A capture as what is left of it: a label may come when the image was deleted already."""
    if not capture.pixels or captures.has_image(store, capture):
        return capture
    return capture.model_copy(update={"pixels": False})


def _searched(
    store: Store, latest: DatasetVersion, searches: Sequence[tuple[SearchRequest, SearchState]]
) -> DatasetVersion:
    """The newest version that a search was asked for; the latest one if there is no search at all.

    A controller that is killed between making a version and asking for its search finds labels that no search
    has seen, and makes the same version and the request again.
    """
    asked = [request.dataset_version for request, _ in searches if request.dataset == latest.name]
    if not asked or max(asked) == latest.version:
        return latest
    return catalog.get(store, f"{latest.name}@{max(asked)}")


def latest_report(store: Store, deployment: Deployment) -> DriftReport | None:
    """The newest drift report about the model that is served now."""
    reports = records.read_all(store, keys.reports(deployment.name), DriftReport)
    return next((report for report in reversed(reports) if report.model == deployment.model), None)


def build(
    store: Store, deployment: Deployment, situation: Situation, *, reason: str, seed: int
) -> SearchRequest:
    """The next data set version, old and new images together, and the request that searches on it.

    The new images become the data set's: it outlives what is captured. Each split gets its share of them, of each class
    in each subgroup that the deployment declares. So does test, the golden set, which nothing is ever trained on. What
    is searched is the deployment's space and what `space.continual` adds to it.

    Doing it again for the same situation gives the same version and the same request.
    """
    sources = [
        SourceImage(
            digest=capture.image,
            source=f"capture {capture.request_id}",
            label=label.label,
            confidence=label.confidence,
            metadata=dict(capture.metadata),
        )
        for capture, label in situation.joined.rows
    ]
    captures.adopt_images(store, (capture for capture, _ in situation.joined.rows))
    alike = _likeness(store, deployment)
    version = importer.extend(
        store,
        situation.version,
        sources,
        seed=seed,
        stratify_by=_stratified_by(sources, deployment.policy.subgroup),
        alike=alike,
    )
    report = situation.snapshot.report
    before = _search_of_champion(store, deployment)
    return SearchRequest(
        dataset=version.name,
        dataset_version=version.version,
        dataset_digest=version.digest,
        space=deployment.space if deployment.model is None else for_successor(deployment.space),
        budget_s=deployment.policy.budget_s,
        max_trials=deployment.policy.max_trials,
        seed=seed,
        parent_model=deployment.model,
        deployment=deployment.name,
        reason=reason,
        nonce=report.id if report else "",
        metric=before.metric if before else "accuracy",
        costs=before.costs if before else None,
        refit=before.refit if before else True,
        soup=before.soup if before else True,
        licenses=before.licenses if before else (),
        workers_per_trial=before.workers_per_trial if before else 1,
        max_latency_ms=before.max_latency_ms if before else None,
        max_memory_mb=before.max_memory_mb if before else None,
        max_size_mb=before.max_size_mb if before else None,
    )


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
    """What it was held to, its re-searches are, too; None: there is no champion."""
    if deployment.model is None:
        return None
    search = read_version(store, deployment.model).lineage.search
    return records.read(store, keys.search_request(search), SearchRequest)
