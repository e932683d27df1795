"""Finding versions by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from autovision.dataset import catalog
from autovision.dataset.importer import import_dataset
from autovision.errors import CorruptObject, InvalidInput, NotFound
from autovision.store import keys
from autovision.store.memory import MemoryStore


def test_finding_versions(store: MemoryStore, folder: Path) -> None:
    assert catalog.list_names(store) == []
    versions = [import_dataset(store, folder, "pets", seed=seed) for seed in range(12)]
    import_dataset(store, folder, "a-pets")
    assert catalog.list_names(store) == ["a-pets", "pets"]
    assert catalog.versions(store, "pets") == versions
    assert catalog.version_numbers(store, "pets") == list(range(1, 13))
    assert catalog.latest(store, "pets") == catalog.get(store, "pets") == versions[-1]
    assert catalog.get(store, "pets@2") == versions[1]
    assert catalog.get(store, versions[9].id) == versions[9]


def test_what_is_not_there(store: MemoryStore, folder: Path) -> None:
    with pytest.raises(NotFound, match=r"no data set 'pets' in the store .*; there is none yet"):
        catalog.get(store, "pets")
    import_dataset(store, folder, "pets")
    with pytest.raises(NotFound, match=r"no data set 'pest' .*; did you mean 'pets'"):
        catalog.latest(store, "pest")
    with pytest.raises(NotFound, match="; there are pets; `autovision dataset list`"):
        catalog.versions(store, "zzz")
    with pytest.raises(NotFound, match=r"'pets' has no version 2; it has 1 to 1"):
        catalog.get(store, "pets@2")
    for reference in ("pets@", "pets@0", "pets@-1", "pets@two", "pets@1@2", "pets@²"):
        with pytest.raises(InvalidInput, match="NAME@NUMBER"):
            catalog.get(store, reference)
    for reference in ("", "A b", "a/b@1"):
        with pytest.raises(InvalidInput, match="data set's name"):
            catalog.get(store, reference)


def test_a_manifest_without_a_version_is_no_data_set(store: MemoryStore) -> None:
    store.put_new(keys.dataset_manifest("pets", "ab"), b"")
    assert catalog.list_names(store) == [] and catalog.version_numbers(store, "pets") == []


def test_a_damaged_version(store: MemoryStore) -> None:
    store.put_new(keys.dataset_version("pets", 1), b"{}")
    with pytest.raises(CorruptObject, match="DatasetVersion"):
        catalog.get(store, "pets")
