"""Deployments: which model is the champion of what. Changed by compare-and-swap, so that one of two promotions wins."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from autovision.errors import Conflict, InvalidInput, NotFound, near
from autovision.model.version import read_version
from autovision.records.base import now
from autovision.records.deployments import CapturePolicy, Decision, Deployment, RetrainingPolicy
from autovision.records.gates import GatePolicy
from autovision.records.rollouts import Rollout, RolloutPolicy
from autovision.records.triggers import DETECTORS
from autovision.store import keys, records
from autovision.store.keys import check_name
from autovision.store.protocol import KeyNotFound, Store

_SHOWN = 10
"""names that an error lists"""


def create(
    store: Store, name: str, dataset: str, space: Mapping[str, Any], policy: RetrainingPolicy | None = None
) -> Deployment:
    """A deployment without a model; the one that is there already if there is one of that name.

    Raises `InvalidInput` for a policy that cannot do what it says.
    """
    at = now()
    fresh = Deployment(
        name=check_name(name, what="deployment"),
        dataset=dataset,
        model=None,
        space=dict(space),
        policy=policy or RetrainingPolicy(),
        created_at=at,
        updated_at=at,
    )
    return records.create_or_read(store, keys.deployment(name), check_policies(fresh))[0]


def get(store: Store, name: str) -> Deployment:
    """Raises `NotFound`, with the near names."""
    try:
        return records.read(store, keys.deployment(name), Deployment)
    except KeyNotFound:
        known = names(store)
        raise NotFound(
            f"no deployment {name!r} in {store.uri}{near(name, known)}; known: {_listed(known)}"
        ) from None


def _listed(known: Sequence[str]) -> str:
    more = f" and {len(known) - _SHOWN} more: `autovision report` lists them" if len(known) > _SHOWN else ""
    return f"{', '.join(known[:_SHOWN])}{more}" if known else "none"


def names(store: Store) -> list[str]:
    return [name for name in store.folders(keys.DEPLOYMENTS) if store.exists(keys.deployment(name))]


def set_champion(
    store: Store, name: str, model: str, *, expected: str | None, decision: Decision | None = None
) -> Deployment:
    """Make `model` the champion, if the champion is still `expected` and no challenger is on its way.

    Args:
        decision: why; None: none is recorded.

    Raises:
        Conflict: somebody promoted another model meanwhile, or began a rollout.
        NotFound: no such model or deployment.
    """
    read_version(store, model)

    def change(current: Deployment) -> Deployment:
        if current.model == model:
            return current
        if current.model != expected:
            raise Conflict(
                f"deployment {name!r} was to change from {expected!r} to {model!r}, but serves {current.model!r} "
                "by now; compare again with that one"
            )
        if current.rollout is not None:
            raise Conflict(
                f"deployment {name!r} was to change from {expected!r} to {model!r}, but a rollout of "
                f"{current.rollout.model!r} has begun by now; wait for its end, or end it with "
                f"`autovision rollback {name}`"
            )
        return with_champion(current, model)

    return decide(store, name, change, decision)


def begin_rollout(store: Store, seen: Deployment, rollout: Rollout, decision: Decision) -> Deployment:
    """Let a challenger begin to take over from the champion that was seen.

    Raises:
        Conflict: somebody promoted another model meanwhile, or began another rollout.
        NotFound: no such model or deployment.
    """
    read_version(store, rollout.model)

    def change(current: Deployment) -> Deployment:
        if (current.model, current.rollout) != (seen.model, seen.rollout):
            busy = current.rollout.model if current.rollout else current.model
            raise Conflict(
                f"a rollout of {rollout.model!r} was to begin in deployment {seen.name!r}, but {busy!r} came in "
                "between; compare again"
            )
        return current.with_(rollout=rollout)

    return decide(store, seen.name, change, decision)


def decide(
    store: Store, name: str, change: Callable[[Deployment], Deployment], decision: Decision | None
) -> Deployment:
    """Change a deployment, and store with the change, in one write, the decision that led to it.

    Args:
        change: gives the changed deployment, the very same one if there is nothing to change, or raises; it may be
            asked several times.
    """

    def changed(current: Deployment) -> Deployment | None:
        successor = change(current)
        if successor == current:
            return None
        if decision is not None:
            if current.decided is not None:
                # Whoever made it may have been killed before it was written down.
                record_decision(store, current.decided)
            successor = successor.with_(decided=decision)
        return successor.with_(revision=current.revision + 1, updated_at=now())

    get(store, name)
    after = records.update(store, keys.deployment(name), Deployment, changed)
    if decision is not None:
        record_decision(store, decision)
    return after


def record_verdict(store: Store, seen: Deployment, decision: Decision) -> None:
    """Store a decision that changes nothing else, if the deployment is still as it was seen when it was made.

    Raises `Conflict` if it changed meanwhile, or something else was decided: of two who judge at once one is heard.
    """

    def change(current: Deployment) -> Deployment:
        if current.revision != seen.revision:
            raise Conflict(
                f"deployment {seen.name!r} changed, or something was decided about it, while this was: "
                f"{decision.what}; look at it, and decide again"
            )
        return current.with_(decided=decision)

    decide(store, seen.name, change, decision)


def with_champion(current: Deployment, model: str) -> Deployment:
    """With `model` as the champion, and no rollout."""
    previous = (*current.previous, current.model) if current.model else current.previous
    return current.with_(model=model, previous=previous, rollout=None)


def with_champion_before(current: Deployment) -> Deployment:
    """With the champion before this one. Raises `InvalidInput` if there is none."""
    if not current.previous:
        raise InvalidInput(f"deployment {current.name!r} has no earlier model to roll back to")
    return current.with_(model=current.previous[-1], previous=current.previous[:-1], rollout=None)


def set_rollout_policy(store: Store, name: str, policy: RolloutPolicy) -> Deployment:
    """How challengers come to serve from now on; a rollout that is under way goes on as it began."""
    return decide(store, name, lambda current: current.with_(rollout_policy=policy), None)


def set_gate_policy(store: Store, name: str, policy: GatePolicy) -> Deployment:
    """What challengers must show from now on."""
    return decide(store, name, lambda current: current.with_(gate_policy=policy), None)


def set_capture_policy(store: Store, name: str, policy: CapturePolicy) -> Deployment:
    """What is kept of requests from now on.

    Raises `InvalidInput` if drift could never be watched: a window of requests has to be kept.
    """

    return decide(store, name, lambda current: check_policies(current.with_(capture_policy=policy)), None)


def check_policies(deployment: Deployment) -> Deployment:
    """The deployment, if its policies fit each other and can do what they say; else an `InvalidInput`."""
    for name in deployment.policy.drift_detectors or ():
        if name not in DETECTORS:
            raise InvalidInput(
                f"drift_detectors of deployment {deployment.name!r}: there is no detector {name!r}"
                f"{near(name, DETECTORS)}; known are {', '.join(DETECTORS)}"
            )
    window, kept = deployment.policy.window, deployment.capture_policy.keep_requests
    if kept is not None and kept < window:
        raise InvalidInput(
            f"{kept} requests are to be kept, and drift in deployment {deployment.name!r} is watched in "
            f"windows of {window}; keep at least as many"
        )
    return deployment


def record_decision(store: Store, decision: Decision) -> None:
    """Write a decision down; again does nothing."""
    records.create_or_read(store, keys.decision(decision.deployment, decision.id), decision)


def decisions(store: Store, name: str) -> list[Decision]:
    """Every decision about a deployment, oldest first."""
    found = {each.id: each for each in records.read_all(store, keys.decisions(name), Decision)}
    try:
        latest = records.read(store, keys.deployment(name), Deployment).decided
    except KeyNotFound:
        latest = None
    if latest is not None:
        found.setdefault(latest.id, latest)
    return [found[which] for which in sorted(found)]
