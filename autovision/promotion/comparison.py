"""What gates look at: champion and challenger on the same held-out images, and what serving the challenger takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from autovision.dataset import catalog
from autovision.decisions import cost_matrix
from autovision.errors import AutoVisionError, CorruptObject, StoreUnavailable
from autovision.metrics import Ints, Mask
from autovision.model.version import read_version
from autovision.promotion.gates.limits import Taken
from autovision.promotion.gates.paired import Paired
from autovision.records.datasets import Split
from autovision.records.deployments import Deployment
from autovision.records.gates import GatePolicy
from autovision.records.models import ModelVersion
from autovision.records.searches import Costs
from autovision.registry import footprints, robustness
from autovision.registry.evaluate import MOST_GROUPS, Predictions, predictions
from autovision.store.protocol import Store


@dataclass(frozen=True)
class Comparison:
    """Everything that `policy.decide` is asked about."""

    paired: Paired
    corrupted: Mapping[str, Paired] = field(default_factory=dict)
    """kind of corruption -> both models on corrupted images, the first ones of `paired`; empty: nobody asks"""
    taken: Taken | None = None
    """None: there are no limits"""


def compare(
    store: Store, deployment: Deployment, challenger: ModelVersion, costs: Costs | None = None
) -> Comparison:
    """Ask both models, and measure what the deployment's policy limits; what is known already is read."""
    policy = deployment.gate_policy
    paired = paired_predictions(store, deployment, challenger, costs)
    return Comparison(
        paired,
        _corrupted(store, deployment.model, challenger, paired, policy) if deployment.model else {},
        _taken(store, challenger, policy),
    )


def paired_predictions(
    store: Store, deployment: Deployment, challenger: ModelVersion, costs: Costs | None = None
) -> Paired:
    """Champion and challenger on the challenger's test split, with the subgroups that the policy protects.

    Each answers by its own decision rule. A challenger that was made for other class shares is judged on the largest
    part of the test split that has these.
    """
    version = catalog.get(store, challenger.lineage.dataset)
    new = predictions(store, challenger.id, version, Split.TEST)
    old = old_scores = None
    if deployment.model is not None:
        champion = read_version(store, deployment.model)
        of_champion = predictions(store, champion.id, version, Split.TEST, classes=challenger.classes)
        old, old_scores = _in_columns_of(challenger, champion, of_champion, new)
    column = deployment.policy.subgroup
    groups = new.groups(column) if column else {}
    positive = challenger.positive_class
    paired = Paired(
        labels=new.labels,
        champion=old,
        challenger=new.probabilities,
        groups=groups,
        ungrouped=_why_ungrouped(new, column) if column and not groups else None,
        classes=challenger.classes,
        positive=None if positive is None else challenger.classes.index(positive),
        champion_scores=old_scores,
        challenger_scores=new.decided,
        costs=None if costs is None else cost_matrix(costs, challenger.classes),
        unknown=() if deployment.model is None else _new_classes(store, deployment.model, challenger),
    )
    part = _part(challenger, new.labels)
    if part is None:
        return paired
    own = {name: mask[part] for name, mask in groups.items()}
    return replace(paired.only(part), groups=own, ungrouped=paired.ungrouped)


def _part(challenger: ModelVersion, labels: Ints) -> Mask | None:
    """(N,) which of the test images the challenger is judged on; None: all."""
    if not challenger.shares:
        return None
    return with_shares(labels, [challenger.shares[name] for name in challenger.classes])


def with_shares(labels: Ints, shares: Sequence[float]) -> Mask:
    """(N,) the largest part of images, the first ones of each class, in which the classes have these shares."""
    counts = np.bincount(labels, minlength=len(shares))
    most = min(count / share for count, share in zip(counts, shares, strict=True) if share > 0)
    part = np.zeros(len(labels), bool)
    for at, share in enumerate(shares):
        part[np.flatnonzero(labels == at)[: round(most * share)]] = True
    return part


def _new_classes(store: Store, champion: str, challenger: ModelVersion) -> tuple[int, ...]:
    known = read_version(store, champion).classes
    return tuple(at for at, name in enumerate(challenger.classes) if name not in known)


def _why_ungrouped(found: Predictions, column: str) -> str:
    """Why the subgroups that a policy declares are not there."""
    values = {value for value in found.metadata.get(column, ()) if value is not None}
    if not values:
        return f"no held-out image says its {column}"
    return f"{column} has {len(values)} values on the held-out images, and at most {MOST_GROUPS} are judged one by one"


def _corrupted(
    store: Store, champion_id: str, challenger: ModelVersion, paired: Paired, policy: GatePolicy
) -> dict[str, Paired]:
    if policy.robustness_margin is None:
        return {}
    champion = read_version(store, champion_id)
    version = catalog.get(store, challenger.lineage.dataset)
    images = robustness.images_for(policy.robustness_images, champion, challenger)
    asked = (version, Split.TEST, images)
    new = robustness.corrupted_predictions(store, challenger.id, *asked)
    part = _part(challenger, predictions(store, challenger.id, version, Split.TEST).labels)
    old = robustness.corrupted_predictions(store, champion.id, *asked, classes=challenger.classes)
    found = {}
    for kind in new:
        probabilities, scores = _in_columns_of(challenger, champion, old[kind], new[kind])
        found[kind] = Paired(
            labels=new[kind].labels,
            champion=probabilities,
            challenger=new[kind].probabilities,
            classes=paired.classes,
            champion_scores=scores,
            challenger_scores=new[kind].decided,
            unknown=paired.unknown,
        )
        if part is not None:
            found[kind] = found[kind].only(part[: len(new[kind].labels)])
    return found


def _taken(store: Store, challenger: ModelVersion, policy: GatePolicy) -> Taken | None:
    if policy.max_size_mb is None and not policy.measures:
        return None
    taken = Taken(size_mb=challenger.size_bytes / 1e6)
    if not policy.measures:
        return taken
    try:
        runtime, found = footprints.as_served(store, challenger, policy.runtime)
    except (StoreUnavailable, CorruptObject):
        raise
    except AutoVisionError as error:
        return Taken(size_mb=taken.size_mb, runtime=policy.runtime, fault=str(error))
    return Taken(
        size_mb=taken.size_mb,
        runtime=runtime,
        node=footprints.node(),
        latency_ms=found.latency_ms,
        memory_mb=found.memory_mb,
    )


def _in_columns_of(
    challenger: ModelVersion, champion: ModelVersion, old: Predictions, new: Predictions
) -> tuple[np.ndarray, np.ndarray]:
    """The champion's probabilities, and its rule's scores, in the challenger's columns.

    Both are 0 for a class that is new to it.
    """
    assert old.images == new.images
    found = []
    for of_champion in (old.probabilities, old.decided):
        columns = np.zeros_like(new.probabilities)
        for at, name in enumerate(champion.classes):
            if name in challenger.classes:
                columns[:, challenger.classes.index(name)] = of_champion[:, at]
        found.append(columns)
    return found[0], found[1]
