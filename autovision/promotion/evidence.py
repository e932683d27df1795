"""What is known of a rollout: counts that the replicas write, and answers of which labels tell the truth by now."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import reduce

from autovision.labelling.consensus import consensus
from autovision.promotion.staging import Evidence, Judged
from autovision.records.datasets import labels_of
from autovision.records.deployments import Capture, Deployment, Label, ShadowAnswer
from autovision.records.rollouts import ArmCounts, ReplicaCounts, Rollout
from autovision.store import captures, keys, labels, records
from autovision.store.protocol import Store


def gather(store: Store, deployment: Deployment, rollout: Rollout) -> Evidence:
    """All evidence of a rollout so far. Replicas that are gone count with what they wrote last."""
    replicas = records.read_all(store, keys.rollout_counts(deployment.name, rollout.id), ReplicaCounts)
    return Evidence(
        stable=_sum(each.stable for each in replicas),
        challenger=_sum(each.challenger for each in replicas),
        compared=sum(each.compared for each in replicas),
        agreed=sum(each.agreed for each in replicas),
        judged=_judged(store, deployment.name, rollout),
        unloadable=next((each.unloadable for each in replicas if each.unloadable), None),
    )


def _sum(counts: Iterable[ArmCounts]) -> ArmCounts:
    return reduce(ArmCounts.__add__, counts, ArmCounts())


def _judged(store: Store, name: str, rollout: Rollout) -> Judged:
    said = labels.read_since(store, name, rollout.began_at)
    if not said:
        return Judged()
    agreed = consensus(said).agreed
    # Of days of requests those that are labelled are few, and embeddings, the most of each, are of no use here.
    answered = {
        each.request_id: each.model_copy(update={"embedding": ()})
        for each in captures.each(store, name, after=rollout.began_at)
        if each.request_id in agreed
    }
    return judge(answered.values(), agreed, rollout.model)


def judge(answered: Iterable[Capture], truth: Mapping[str, Label], challenger: str) -> Judged:
    """What labels say of both arms.

    Args:
        truth: request id -> what the annotators agree on.
        challenger: the model that is neither counted as the champion nor as anything before it.
    """
    arms = {True: [0, 0], False: [0, 0]}
    gained = lost = 0
    for capture in answered:
        label = truth.get(capture.request_id)
        if label is None:
            continue
        is_right = _same(capture, label)
        if capture.shadow is not None and capture.shadow.model == challenger:
            shadow_right = _same(capture.shadow, label)
            gained += shadow_right and not is_right
            lost += is_right and not shadow_right
        else:
            arm = arms[capture.model == challenger]
            arm[0] += 1
            arm[1] += is_right
    return Judged(
        stable=(arms[False][0], arms[False][1]),
        challenger=(arms[True][0], arms[True][1]),
        gained=gained,
        lost=lost,
    )


def _same(answer: Capture | ShadowAnswer, label: Label) -> bool:
    return set(labels_of(answer.label)) == set(labels_of(label.label))
