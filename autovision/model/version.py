"""Reading model versions from the store: their records and files, without what builds networks of them."""

from __future__ import annotations

import hashlib

from autovision.errors import CorruptObject, NotFound, near
from autovision.records.models import ModelVersion
from autovision.store import keys, records
from autovision.store.protocol import KeyNotFound, Store


def read_version(store: Store, model_id: str) -> ModelVersion:
    """The record of a model version. Raises `NotFound`, with the near names."""
    try:
        return records.read(store, keys.model(model_id), ModelVersion)
    except KeyNotFound:
        known = [key.split("/")[1] for key in store.list(keys.MODELS) if key.endswith("/model.json")]
        raise NotFound(
            f"no model {model_id!r} in {store.uri}{near(model_id, known)}; `autovision model list` shows them"
        ) from None


def read_file(store: Store, version: ModelVersion, name: str) -> bytes:
    """A file of the version's bundle. Raises `CorruptObject` if it does not match its digest."""
    return read_stored(store, version.id, name, version.files[name])


def read_stored(store: Store, model_id: str, name: str, digest: str) -> bytes:
    """A file that lies with a model, by its digest. Raises `CorruptObject` if it does not match it."""
    data = store.get(keys.model_file(model_id, name, digest)).data
    if hashlib.sha256(data).hexdigest() != digest:
        raise CorruptObject(
            f"file {name!r} of model {model_id!r} in {store.uri} does not match its digest; restore it"
        )
    return data
