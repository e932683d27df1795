"""Promotion as an act: compare, decide, write the decision down, change the champion."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import numpy as np

from autovision.dataset import catalog
from autovision.decisions import cost_matrix
from autovision.model.version import read_version
from autovision.promotion.gates import Paired
from autovision.promotion.policy import decide
from autovision.records.base import now
from autovision.records.datasets import Split
from autovision.records.deployments import Decision, DecisionKind, Deployment, Verdict
from autovision.records.models import ModelVersion
from autovision.records.searches import Costs
from autovision.registry import deployments
from autovision.registry.evaluate import Predictions, predictions
from autovision.store import keys
from autovision.store.protocol import Store


def consider(
    store: Store,
    name: str,
    model_id: str,
    *,
    metric: str = "accuracy",
    costs: Costs | None = None,
    force: bool = False,
    clock: Callable[[], datetime] = now,
) -> Decision:
    """Compare a model with a deployment's champion on held-out data and promote it if every gate passes.

    Both answer the test split of the data set version that the challenger was trained on, which the
    champion never trained on either: a version keeps the splits of those before it.

    Args:
        costs: of answers, for the metric `neg_mean_cost`.
        force: promote whatever the gates say; the decision records their verdict and that it was overruled.

    Raises:
        NotFound: no such deployment or model.
        Conflict: another model was promoted meanwhile.
    """
    deployment = deployments.get(store, name)
    challenger = read_version(store, model_id)
    if deployment.model == challenger.id:
        verdict = Verdict(
            accepted=True, what="nothing to do", why=f"{challenger.id} is the champion already", numbers={}
        )
    else:
        verdict = decide(paired_predictions(store, deployment, challenger, costs), metric=metric)
    overruled = force and not verdict.accepted
    at = clock()
    decision = Decision(
        id=keys.timestamped_id(at),
        kind=DecisionKind.PROMOTE,
        deployment=name,
        accepted=verdict.accepted or force,
        what=f"{verdict.what}: {challenger.id}" + (f" over {deployment.model}" if deployment.model else ""),
        why=("promoted by hand against the gate's advice; " if overruled else "") + verdict.why,
        subject=challenger.id,
        numbers={**verdict.numbers, "champion": deployment.model, "overruled": overruled},
        created_at=at,
    )
    if decision.accepted:
        deployments.set_champion(store, name, challenger.id, expected=deployment.model)
    deployments.record_decision(store, decision)
    return decision


def roll_back(store: Store, name: str, *, clock: Callable[[], datetime] = now) -> Decision:
    """Make the champion before this one the champion again. Raises `InvalidInput` if there is none."""
    before = deployments.get(store, name)
    after = deployments.roll_back(store, name)
    at = clock()
    decision = Decision(
        id=keys.timestamped_id(at),
        kind=DecisionKind.ROLLBACK,
        deployment=name,
        accepted=True,
        what=f"roll back from {before.model} to {after.model}",
        why="asked for by hand",
        subject=after.model,
        numbers={"from": before.model},
        created_at=at,
    )
    deployments.record_decision(store, decision)
    return decision


def paired_predictions(
    store: Store, deployment: Deployment, challenger: ModelVersion, costs: Costs | None = None
) -> Paired:
    """Champion and challenger on the challenger's test split, with the subgroups that the policy protects.

    Each answers by its own decision rule.
    """
    version = catalog.get(store, challenger.lineage.dataset)
    new = predictions(store, challenger.id, version, Split.TEST)
    old = old_scores = None
    if deployment.model is not None:
        old, old_scores = _champion_columns(store, deployment.model, challenger, new)
    column = deployment.policy.subgroup
    positive = challenger.positive_class
    return Paired(
        labels=new.labels,
        champion=old,
        challenger=new.probabilities,
        groups=new.groups(column) if column else {},
        classes=challenger.classes,
        positive=None if positive is None else challenger.classes.index(positive),
        champion_scores=old_scores,
        challenger_scores=new.decided,
        costs=None if costs is None else cost_matrix(costs, challenger.classes),
    )


def _champion_columns(
    store: Store, model_id: str, challenger: ModelVersion, new: Predictions
) -> tuple[np.ndarray, np.ndarray]:
    """The champion's probabilities for the same images, and its rule's scores, in the challenger's columns.

    Both are 0 for a class that is new to it.
    """
    champion = read_version(store, model_id)
    version = catalog.get(store, challenger.lineage.dataset)
    old = predictions(store, model_id, version, Split.TEST, classes=challenger.classes)
    assert old.images == new.images
    found = []
    for of_champion in (old.probabilities, old.decided):
        columns = np.zeros_like(new.probabilities)
        for at, name in enumerate(champion.classes):
            if name in challenger.classes:
                columns[:, challenger.classes.index(name)] = of_champion[:, at]
        found.append(columns)
    return found[0], found[1]
