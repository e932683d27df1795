"""Where a search begins."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from autovision.records.searches import SearchRequest, SearchState
from autovision.records.trials import TrialResult, TrialState
from autovision.search.similarity import Neighbour
from autovision.search.warm import similar_points, starting_points
from autovision.space import Choice, Float, Integer, Space
from autovision.space.config import TrialConfig
from autovision.space.continual import for_successor
from autovision.store import MemoryStore, keys, records
from tests.unit.search.conftest import EPOCH

if TYPE_CHECKING:
    from tests.unit.conftest import History

Line = Callable[..., TrialResult]


class Heads(Space):
    backbone = Choice("test_resnet", "test_efficientnet")
    weights = "random"
    resolution = 64
    taps = Integer(1, 4, default=2)
    lr = Float(1e-3, 1e-1, log=True, default=1e-2)


def config(**changes: Any) -> TrialConfig:
    fixed = {"backbone": "test_resnet", "weights": "random", "resolution": 64, "taps": 2}
    return TrialConfig.model_validate({**fixed, **changes})


def request_of(space: Space, **changes: Any) -> SearchRequest:
    fields = {
        "dataset": "shapes",
        "dataset_version": 2,
        "dataset_digest": "0" * 64,
        "space": space.to_json(),
        "budget_s": 60.0,
    }
    return SearchRequest.model_validate({**fields, **changes})


@pytest.fixture
def past(line: Line) -> Callable[..., MemoryStore]:
    """A store with an earlier search that has these trials."""

    def make(*results: TrialResult, store: MemoryStore | None = None, **changes: Any) -> MemoryStore:
        store = store or MemoryStore()
        earlier = request_of(Heads(), **{"dataset_version": 1, **changes})
        records.create(store, keys.search_request(earlier.id), earlier)
        for result in results:
            records.create(store, keys.trial(earlier.id, result.trial), result.with_(search=earlier.id))
        return store

    return make


def test_a_cold_search_begins_with_the_default_alone(past: Callable[..., MemoryStore], line: Line) -> None:
    store = past(line(0, 0.9, config=config(lr=0.05)))
    (start,) = starting_points(store, request_of(Heads(), warm_start=False), Heads())
    assert (start.origin, start.point, start.initial_model) == ("default", Heads.default(), None)


def test_without_a_past_the_default_is_all_there_is() -> None:
    assert [s.origin for s in starting_points(MemoryStore(), request_of(Heads()), Heads())] == ["default"]


def test_the_best_of_earlier_searches_come_in_their_order(
    past: Callable[..., MemoryStore], line: Line
) -> None:
    values = [0.6, 0.9, 0.7, 0.8, 0.5]
    store = past(*(line(i, value, config=config(lr=0.02 + i / 100)) for i, value in enumerate(values)))
    starts = starting_points(store, request_of(Heads()), Heads())
    assert [start.origin for start in starts] == ["ledger"] * 5 + ["default"]
    assert [start.point["lr"] for start in starts[:5]] == pytest.approx([0.03, 0.05, 0.04, 0.02, 0.06])


def test_of_many_the_best_and_the_best_of_other_features_are_tried_again(
    past: Callable[..., MemoryStore], line: Line
) -> None:
    many = [line(i, 0.9 - 1e-4 * i, config=config(lr=0.02 + i / 1000)) for i in range(20)]
    others = [
        line(20 + i, 0.6 - i / 100, config=config(backbone="test_efficientnet", lr=0.02 + i / 1000))
        for i in range(3)
    ]
    starts = starting_points(past(*others, *many), request_of(Heads()), Heads())
    points = [(start.point["backbone"], start.point["lr"]) for start in starts if start.origin == "ledger"]
    assert points == [
        *(("test_resnet", pytest.approx(0.02 + i / 1000)) for i in range(12)),
        ("test_efficientnet", pytest.approx(0.02)),
    ]


def test_the_same_configuration_is_tried_once(past: Callable[..., MemoryStore], line: Line) -> None:
    same = config(lr=0.05)
    store = past(line(0, 0.7, config=same), line(1, 0.9, config=same), line(2, 0.8, config=config(lr=1e-2)))
    starts = starting_points(store, request_of(Heads()), Heads())
    # The third one is the space's default, and was found before it.
    assert [(start.origin, round(start.point["lr"], 6)) for start in starts] == [
        ("ledger", 0.05),
        ("ledger", 0.01),
    ]


def test_what_gave_no_model_is_no_winner(past: Callable[..., MemoryStore], line: Line) -> None:
    store = past(
        line(0, None, config=config(lr=0.05)),
        line(1, 0.99, config=config(lr=0.06), state=TrialState.FAILED, weights_key=None),
    )
    assert [s.origin for s in starting_points(store, request_of(Heads()), Heads())] == ["default"]


@pytest.mark.parametrize("changes", [{"dataset": "others"}, {"metric": "auroc"}])
def test_searches_for_something_else_are_not_looked_at(
    past: Callable[..., MemoryStore], line: Line, changes: dict[str, Any]
) -> None:
    store = past(line(0, 0.9, config=config(lr=0.05)), **changes)
    assert [s.origin for s in starting_points(store, request_of(Heads()), Heads())] == ["default"]


def test_by_other_costs_the_best_is_another_one(past: Callable[..., MemoryStore], line: Line) -> None:
    costs = {"a": {"b": 1.0}, "b": {"a": 9.0}}
    fields: dict[str, Any] = {"metric": "neg_mean_cost", "costs": costs}
    store = past(line(0, 0.9, config=config(lr=0.05)), **fields)
    same = starting_points(store, request_of(Heads(), **fields), Heads())
    assert [start.origin for start in same] == ["ledger", "default"]
    turned = fields | {"costs": {"a": {"b": 9.0}, "b": {"a": 1.0}}}
    assert [s.origin for s in starting_points(store, request_of(Heads(), **turned), Heads())] == ["default"]


def test_a_search_does_not_begin_from_itself(line: Line) -> None:
    store, request = MemoryStore(), request_of(Heads())
    records.create(store, keys.search_request(request.id), request)
    records.create(store, keys.trial(request.id, "t"), line(0, 0.9, trial="t", config=config(lr=0.05)))
    assert [s.origin for s in starting_points(store, request, Heads())] == ["default"]


def test_winners_of_another_space_become_the_nearest_points_of_this_one(
    past: Callable[..., MemoryStore], line: Line
) -> None:
    store = past(
        line(0, 0.9, config=config(lr=9.0, taps=7, pooling="gem")),
        line(1, 0.95, config=config(backbone="resnet18")),
    )
    starts = starting_points(store, request_of(Heads()), Heads())
    assert [start.origin for start in starts] == ["ledger", "default"], "its backbone is not in this space"
    assert starts[0].point == {"backbone": "test_resnet", "taps": 4, "lr": 0.1}
    assert Heads.contains(starts[0].point)


def test_the_champion_comes_first_and_lends_its_head(tiny: History) -> None:
    request = tiny.searches[1].with_(nonce="again", parent_model=tiny.models[1].id)
    starts = starting_points(tiny.store, request, tiny.space)
    assert starts[0].origin == "champion"
    assert starts[0].initial_model == tiny.models[1].id
    champion = TrialConfig.model_validate(tiny.models[1].lineage.config)
    assert tiny.space.config(starts[0].point).digest == champion.digest
    digests = [tiny.space.config(start.point).digest for start in starts]
    assert len(set(digests)) == len(digests)
    assert "ledger" in {start.origin for start in starts}
    assert all(start.initial_model is None for start in starts[1:]), "this space has nothing to hold it by"


def test_a_second_start_from_the_champion_is_held_back_where_the_space_lets_it(tiny: History) -> None:
    space = Space.from_json(for_successor(tiny.space.to_json(), old=900, new=100))
    request = tiny.searches[1].with_(nonce="again", parent_model=tiny.models[1].id, space=space.to_json())
    plain, held = starting_points(tiny.store, request, space)[:2]
    assert plain.origin == held.origin == "champion"
    assert plain.initial_model == held.initial_model == tiny.models[1].id
    assert (plain.point["new_weight"], plain.point["distill"]) == (1.0, 0.0)
    assert (held.point["new_weight"], held.point["distill"]) == (pytest.approx(3.0), 0.5)


def test_a_champion_that_is_gone_or_of_another_space_is_passed_over(tiny: History) -> None:
    gone = tiny.searches[1].with_(parent_model="colours-m-gone")
    assert starting_points(tiny.store, gone, tiny.space)[0].origin == "ledger"

    class Others(Space):
        backbone = "test_vit"
        weights = "random"
        lr = Float(1e-3, 1e-1)

    request = tiny.searches[1].with_(space=Others.to_json(), parent_model=tiny.models[0].id)
    assert [start.origin for start in starting_points(tiny.store, request, Others())] == ["default"]


NEAR, FAR = Neighbour("near@1", "near", 0.1), Neighbour("far@3", "far", 0.8)


def test_winners_on_data_sets_that_look_alike_come_nearest_first(
    past: Callable[..., MemoryStore], line: Line
) -> None:
    store = past(line(0, 0.99, config=config(lr=0.09)), line(1, 0.6, config=config(lr=0.08)), dataset="far")
    past(
        line(0, 0.7, config=config(lr=0.02)),
        line(1, 0.5, config=config(lr=0.03)),
        store=store,
        dataset="near",
    )
    past(line(0, 0.9, config=config(lr=0.05)), store=store, dataset="unknown")
    request = request_of(Heads())
    starts = similar_points(store, request, Heads(), [NEAR, FAR])
    assert [(start.origin, round(start.point["lr"], 6)) for start in starts] == [
        ("similar", 0.02),
        ("similar", 0.09),
    ]
    assert similar_points(store, request, Heads(), []) == []
    assert similar_points(store, request.with_(warm_start=False), Heads(), [NEAR, FAR]) == []


def test_only_the_latest_searches_with_trials_are_looked_at(
    past: Callable[..., MemoryStore], line: Line
) -> None:
    """Whatever was good came again in these, and a year of searches is too much to read."""
    store = MemoryStore()
    for day in range(8):
        trials = [line(0, 0.9 - day / 10, config=config(lr=0.01 + day / 100))] if day != 6 else []
        past(*trials, store=store, nonce=str(day))
        search, at = request_of(Heads(), dataset_version=1, nonce=str(day)).id, EPOCH + timedelta(days=day)
        records.create(
            store, keys.search_state(search), SearchState(search=search, created_at=at, updated_at=at)
        )
    starts = starting_points(store, request_of(Heads()), Heads())
    assert [round(100 * start.point["lr"]) for start in starts[:-1]] == [3, 4, 5, 6, 8]
