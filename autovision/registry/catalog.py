"""Finding model versions."""

from __future__ import annotations

from autovision.errors import NotFound
from autovision.model.version import read_version
from autovision.records.models import ModelVersion
from autovision.registry import deployments
from autovision.store import keys, records
from autovision.store.protocol import Store


def all_versions(store: Store) -> list[ModelVersion]:
    """Every model version, oldest first."""
    found = records.read_all(store, keys.MODELS, ModelVersion, suffix="/model.json")
    return sorted(found, key=lambda version: version.created_at)


def resolve(store: Store, name: str) -> str:
    """A model's id from an id, or from a deployment's name (its champion). Raises `NotFound`."""
    if name in deployments.names(store):
        deployment = deployments.get(store, name)
        if deployment.model is None:
            raise NotFound(f"deployment {name!r} has no model yet; promote one first")
        return deployment.model
    return read_version(store, name).id
