"""Searches that end before their budget, are extended, and teach the next one, with real Ray."""

from __future__ import annotations

from pathlib import Path

import pytest

from autovision.api import AutoVision
from autovision.errors import Interrupted
from autovision.records.searches import PriceTable, SearchState, SearchStatus
from autovision.search.estimates.prices import cluster
from autovision.space import Space


@pytest.fixture(scope="module")
def av(ray_here: None, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> AutoVision:
    av = AutoVision(tmp_path_factory.mktemp("budgets") / "store")
    av.import_dataset(folder, "colours", seed=0)
    return av


@pytest.fixture(scope="module")
def impatient(av: AutoVision, tiny: Space) -> SearchState:
    return av.search("colours", space=tiny, budget_s=240, seed=0, patience_s=4)


def test_a_search_without_progress_ends_early_with_a_model(impatient: SearchState) -> None:
    assert impatient.status is SearchStatus.FINISHED and impatient.model is not None
    assert impatient.ended_early is not None and "patience 4 s" in impatient.ended_early
    assert impatient.spent_s < 200
    assert impatient.estimate is not None and "from arithmetic alone" in impatient.estimate


def test_it_leaves_what_the_next_search_begins_with(av: AutoVision, impatient: SearchState) -> None:
    assert len(list(av.store.list("speeds/"))) == 1
    assert any(key.endswith("/colours@1.json") for key in av.store.list("sketches/"))


def test_it_goes_on_when_it_is_extended(av: AutoVision, impatient: SearchState, tiny: Space) -> None:
    av.extend(impatient.search, 25)
    after = av.resume(impatient.search)
    assert after.status is SearchStatus.FINISHED and after.attempt == 2
    assert after.trials > impatient.trials
    best = max(av.trials(after.search), key=lambda trial: trial.value or 0.0)
    assert after.best_trial == best.trial == av.model(str(after.model)).lineage.trial


def test_a_similar_data_set_lends_its_winner(
    av: AutoVision, impatient: SearchState, folder: Path, tiny: Space
) -> None:
    """Known once the first heads, which are trained together, have their features: it is stopped when it has come."""
    av.import_dataset(folder, "paints", seed=1)
    search = av.search("paints", space=tiny, budget_s=240, seed=0, wait=False).search
    with pytest.raises(Interrupted):
        av.resume(search, should_stop=lambda: "similar" in {trial.origin for trial in av.trials(search)})
    estimate = av.search_of(search)[1].estimate
    assert estimate is not None and "what was measured on nodes of this kind" in estimate


def test_money_ends_a_search(av: AutoVision, tiny: Space) -> None:
    cpus = sum(node["Resources"].get("CPU", 0.0) for node in cluster())
    a_second = PriceTable(currency="EUR", cpu=3600 / cpus)
    state = av.search("colours", space=tiny, budget_s=600, seed=1, max_cost=20.0, prices=a_second)
    assert state.status is SearchStatus.FINISHED and state.spent_s < 200
    assert state.ended_early is not None and "20.00 EUR" in state.ended_early
    assert state.cost == pytest.approx(state.spent_s, rel=0.01)
