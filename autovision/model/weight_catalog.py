"""Weights that were imported into the store: found by name, without reading a tensor."""

from __future__ import annotations

from autovision.errors import NotFound, near
from autovision.records.models import ImportedWeights
from autovision.store import keys, records
from autovision.store.protocol import KeyNotFound, Store

PREFIX = "store:"
"""what `TrialConfig.weights` begins with where it names imported weights"""


def name_of(weights: str) -> str | None:
    """The name in `store:NAME`; None for weights from elsewhere."""
    return weights.removeprefix(PREFIX) if weights.startswith(PREFIX) else None


def get(store: Store, name: str) -> ImportedWeights:
    """The record of imported weights. Raises `NotFound`, with the near names."""
    try:
        return records.read(
            store, keys.weights_record(keys.check_name(name, what="the weights' name")), ImportedWeights
        )
    except KeyNotFound:
        known = [each.name for each in list_all(store)]
        raise NotFound(
            f"no weights {name!r} in {store.uri}{near(name, known)}; `autovision weights list` shows them, "
            "`autovision weights import` brings some in"
        ) from None


def list_all(store: Store) -> list[ImportedWeights]:
    """All imported weights, by name."""
    return records.read_all(store, keys.WEIGHTS_RECORDS, ImportedWeights)
