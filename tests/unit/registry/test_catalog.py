"""Finding model versions and searches."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from autovision.errors import NotFound
from autovision.registry import catalog, deployments
from autovision.registry.searches import all_searches
from autovision.store import MemoryStore, keys

if TYPE_CHECKING:
    from tests.unit.conftest import History


def test_models_are_listed_from_the_oldest_on(tiny: History) -> None:
    assert catalog.all_versions(tiny.store) == list(tiny.models)
    assert catalog.all_versions(MemoryStore()) == []


def test_files_without_a_record_are_no_model(tiny: History) -> None:
    store = tiny.copy()
    store.delete(keys.model(tiny.models[0].id))
    assert catalog.all_versions(store) == [tiny.models[1]]


def test_a_model_is_named_by_itself_or_by_the_deployment_that_it_serves(tiny: History) -> None:
    store, model = tiny.copy(), tiny.models[0].id
    assert catalog.resolve(store, model) == model
    deployments.create(store, "door", "colours", tiny.space.to_json())
    with pytest.raises(NotFound, match="'door' has no model yet"):
        catalog.resolve(store, "door")
    deployments.set_champion(store, "door", model, expected=None)
    assert catalog.resolve(store, "door") == model
    with pytest.raises(NotFound, match=f"did you mean .*{model}"):
        catalog.resolve(store, model[:-1])


def test_searches_are_listed_from_the_oldest_on(tiny: History) -> None:
    found = all_searches(tiny.store)
    assert [request for request, _ in found] == list(tiny.searches)
    assert [state.model for _, state in found] == [model.id for model in tiny.models]
