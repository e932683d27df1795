"""Deployments: one champion at a time, whoever promotes."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from autovision.errors import Conflict, InvalidInput, NotFound
from autovision.records.deployments import Deployment, RetrainingPolicy
from autovision.registry import deployments
from autovision.store import MemoryStore

if TYPE_CHECKING:
    from tests.unit.conftest import History


@pytest.fixture
def store(tiny: History) -> MemoryStore:
    store = tiny.copy()
    deployments.create(store, "door", "colours", tiny.space.to_json())
    return store


@pytest.fixture
def models(tiny: History) -> tuple[str, str]:
    return tiny.models[0].id, tiny.models[1].id


def test_the_one_that_is_there_stays(store: MemoryStore, tiny: History) -> None:
    before = deployments.get(store, "door")
    policy = RetrainingPolicy(window=50)
    assert deployments.create(store, "door", "others", {}, policy) == before
    gate = deployments.create(store, "gate", "colours", tiny.space.to_json(), policy)
    assert (gate.policy.window, gate.model, gate.revision) == (50, None, 0)
    assert deployments.names(store) == ["door", "gate"]


@pytest.mark.parametrize("name", ["", "a/b", "../x", "-a", "a" * 65])
def test_a_name_that_cannot_be_a_key_is_refused(store: MemoryStore, name: str) -> None:
    with pytest.raises(InvalidInput, match="is not a valid name"):
        deployments.create(store, name, "colours", {})


def test_an_unknown_deployment_is_met_with_the_near_ones(store: MemoryStore) -> None:
    with pytest.raises(NotFound, match=r"no deployment 'dor'.*did you mean 'door'"):
        deployments.get(store, "dor")
    with pytest.raises(NotFound, match="known: none"):
        deployments.get(MemoryStore(), "door")


def test_champions_follow_each_other_and_come_back(store: MemoryStore, models: tuple[str, str]) -> None:
    first, second = models
    deployments.set_champion(store, "door", first, expected=None)
    serving = deployments.set_champion(store, "door", second, expected=first)
    assert (serving.model, serving.previous, serving.revision) == (second, (first,), 2)
    back = deployments.decide(store, "door", deployments.with_champion_before, None)
    assert (back.model, back.previous, back.revision) == (first, (), 3)
    with pytest.raises(InvalidInput, match="'door' has no earlier model"):
        deployments.decide(store, "door", deployments.with_champion_before, None)
    with pytest.raises(NotFound):
        deployments.decide(store, "gate", deployments.with_champion_before, None)


def test_promoting_the_champion_changes_nothing(store: MemoryStore, models: tuple[str, str]) -> None:
    before = deployments.set_champion(store, "door", models[0], expected=None)
    assert deployments.set_champion(store, "door", models[0], expected="whoever") == before
    assert deployments.get(store, "door") == before


def test_a_promotion_over_another_champion_than_expected_is_refused(
    store: MemoryStore, models: tuple[str, str]
) -> None:
    first, second = models
    deployments.set_champion(store, "door", first, expected=None)
    with pytest.raises(Conflict, match=rf"from None to '{second}', but serves '{first}'"):
        deployments.set_champion(store, "door", second, expected=None)
    assert deployments.get(store, "door").model == first


def test_what_is_not_there_cannot_be_promoted(store: MemoryStore, models: tuple[str, str]) -> None:
    with pytest.raises(NotFound, match="no model 'nobody'"):
        deployments.set_champion(store, "door", "nobody", expected=None)
    with pytest.raises(NotFound):
        deployments.set_champion(store, "gate", models[0], expected=None)


def test_of_two_promotions_at_once_one_wins(store: MemoryStore, models: tuple[str, str]) -> None:
    together = threading.Barrier(8)
    won: list[Deployment] = []
    lost: list[Conflict] = []

    def promote(model: str) -> None:
        together.wait()
        try:
            won.append(deployments.set_champion(store, "door", model, expected=None))
        except Conflict as conflict:
            lost.append(conflict)

    threads = [threading.Thread(target=promote, args=(models[i % 2],)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    champion = deployments.get(store, "door")
    assert {deployment.model for deployment in won} == {champion.model}
    assert (len(won), len(lost)) == (4, 4), "four asked for the one that serves, and four for the other"
    assert champion.revision == 1
