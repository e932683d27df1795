"""Deployments: which model is the champion of what. Changed by compare-and-swap, so that one of two promotions wins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autovision.errors import Conflict, InvalidInput, NotFound, near
from autovision.model.version import read_version
from autovision.records.base import now
from autovision.records.deployments import Decision, Deployment, RetrainingPolicy
from autovision.store import keys, records
from autovision.store.keys import check_name
from autovision.store.protocol import KeyNotFound, Store


def create(
    store: Store, name: str, dataset: str, space: Mapping[str, Any], policy: RetrainingPolicy | None = None
) -> Deployment:
    """A deployment without a model; the one that is there already if there is one of that name."""
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
    return records.create_or_read(store, keys.deployment(name), fresh)[0]


def get(store: Store, name: str) -> Deployment:
    """Raises `NotFound`, with the near names."""
    try:
        return records.read(store, keys.deployment(name), Deployment)
    except KeyNotFound:
        known = names(store)
        raise NotFound(
            f"no deployment {name!r} in {store.uri}{near(name, known)}; known: {known or 'none'}"
        ) from None


def names(store: Store) -> list[str]:
    return sorted(
        {key.split("/")[1] for key in store.list(keys.DEPLOYMENTS) if key.endswith("/deployment.json")}
    )


def set_champion(store: Store, name: str, model: str, *, expected: str | None) -> Deployment:
    """Make `model` the champion, if the champion is still `expected`.

    Raises:
        Conflict: somebody promoted another model meanwhile.
        NotFound: no such model or deployment.
    """
    read_version(store, model)

    def change(current: Deployment) -> Deployment | None:
        if current.model == model:
            return None
        if current.model != expected:
            raise Conflict(
                f"deployment {name!r} was to change from {expected!r} to {model!r}, but serves {current.model!r} "
                "by now; compare again with that one"
            )
        previous = (*current.previous, current.model) if current.model else current.previous
        return current.with_(model=model, previous=previous, revision=current.revision + 1, updated_at=now())

    return records.update(store, keys.deployment(name), Deployment, change)


def roll_back(store: Store, name: str) -> Deployment:
    """Serve the champion before this one again. Raises `InvalidInput` if there is none."""

    def change(current: Deployment) -> Deployment:
        if not current.previous:
            raise InvalidInput(f"deployment {name!r} has no earlier model to roll back to")
        return current.with_(
            model=current.previous[-1],
            previous=current.previous[:-1],
            revision=current.revision + 1,
            updated_at=now(),
        )

    get(store, name)
    return records.update(store, keys.deployment(name), Deployment, change)


def record_decision(store: Store, decision: Decision) -> None:
    records.create(store, keys.decision(decision.deployment, decision.id), decision)


def decisions(store: Store, name: str) -> list[Decision]:
    """Every decision about a deployment, oldest first."""
    return records.read_all(store, keys.decisions(name), Decision)
