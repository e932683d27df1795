"""What is set aside at the end of a budget."""

from __future__ import annotations

from typing import Any

import pytest

from autovision.records.searches import SearchRequest
from autovision.registry.corruptions import KINDS
from autovision.search.costing.cost import CostModel
from autovision.search.finishing import confirm, robust
from autovision.search.reserve import Reserve
from autovision.space import Choice, Float, Space
from autovision.space.config import TrialConfig


class Both(Space):
    backbone = "test_resnet"
    weights = "random"
    resolution = 64
    unfreeze = Choice(0, 1)
    lr = Float(1e-3, 1e-1)
    epochs = 9
    batch_size = 16


DEFAULT = Both.config(Both.default())
HEAD, TUNED = DEFAULT.with_(unfreeze=0), DEFAULT.with_(unfreeze=1)


def reserve(
    cost: CostModel,
    budget_s: float = 6e5,
    images: int = 60,
    champion: TrialConfig | None = None,
    **changes: Any,
) -> Reserve:
    request = SearchRequest(
        dataset="d",
        dataset_version=1,
        dataset_digest="0" * 64,
        space=Both().to_json(),
        budget_s=600.0,
        **changes,
    )
    return Reserve(request, cost, DEFAULT, images, budget_s, threads=2, champion=champion)


def test_evaluating_takes_as_long_as_the_images_and_views_and_at_most_a_quarter(cost: CostModel) -> None:
    assert reserve(cost, 8.0, 10_000).evaluation_s(HEAD) == 2.0
    alone = reserve(cost, images=6_000).evaluation_s(HEAD)
    assert 5.0 < reserve(cost, 600.0).evaluation_s(HEAD) < 15.0
    views = reserve(cost, images=6_000).evaluation_s(HEAD.with_(test_time_augmentation="dihedral"))
    assert views > alone + 1.0, "it sees every image eight times"


def test_what_is_not_asked_for_gets_no_seconds(cost: CostModel) -> None:
    evaluation_s = reserve(cost).evaluation_s(HEAD)
    assert reserve(cost, refit=False, confirm=False)(HEAD) == evaluation_s
    refit_s = reserve(cost, confirm=False)(HEAD) - evaluation_s
    assert refit_s == pytest.approx(cost.refit_s(HEAD))
    confirm_s = reserve(cost, refit=False)(HEAD) - evaluation_s
    assert confirm_s == pytest.approx(
        2 * confirm.LOADING_S + confirm.MOST * confirm.seconds(cost.head_s(HEAD))
    )
    assert reserve(cost)(HEAD) == pytest.approx(evaluation_s + refit_s + confirm_s)


def test_each_part_is_at_most_a_share_of_the_budget(cost: CostModel) -> None:
    long = HEAD.with_(epochs=1_000)
    parts = reserve(cost, 1.0).evaluation_s(long), reserve(cost, 1.0, confirm=False)(long)
    assert parts == (0.25, pytest.approx(0.45))
    assert reserve(cost, 1.0, refit=False)(long) == pytest.approx(0.35)


def test_without_a_best_the_spaces_default_stands_for_it(cost: CostModel) -> None:
    assert reserve(cost)(None) == reserve(cost)(DEFAULT)


def test_heads_are_judged_once_more_where_the_best_is_none(cost: CostModel) -> None:
    of_tuned = reserve(cost, refit=False)(TUNED) - reserve(cost).evaluation_s(TUNED)
    of_head = reserve(cost, refit=False)(HEAD) - reserve(cost).evaluation_s(HEAD)
    assert of_tuned == pytest.approx(of_head)


def test_judging_beside_a_champion_has_seconds_of_its_own(cost: CostModel) -> None:
    alone, beside = reserve(cost)(HEAD), reserve(cost, champion=HEAD)(HEAD)
    cross_validated = confirm.LOADING_S + confirm.seconds(cost.head_s(HEAD))
    judging = beside - alone - cross_validated
    assert judging > 0
    tuned = reserve(cost, champion=TUNED)(HEAD), reserve(cost, confirm=False, champion=TUNED)(HEAD)
    assert tuned[0] - alone == pytest.approx(tuned[1] - reserve(cost, confirm=False)(HEAD)), "no head"
    without = reserve(cost, confirm=False)(HEAD), reserve(cost, confirm=False, champion=HEAD)(HEAD)
    assert without[1] - without[0] == pytest.approx(judging)


def test_features_that_only_the_champion_reads_are_counted(cost: CostModel) -> None:
    large = HEAD.with_(resolution=256)
    assert reserve(cost, champion=large)(HEAD) > reserve(cost, champion=HEAD)(HEAD)


def test_judging_beside_a_champion_takes_a_share_of_the_budget_at_most(cost: CostModel) -> None:
    assert reserve(cost, 1.0, champion=HEAD)(HEAD) - reserve(cost, 1.0)(HEAD) == pytest.approx(0.2)


def test_corrupted_images_that_gates_will_look_at_are_counted(cost: CostModel) -> None:
    looking = reserve(cost, champion=HEAD, robustness_margin=0.05)(HEAD)
    seen = cost.evaluation_s(HEAD, robust.MOST * len(KINDS), threads=2)
    assert looking - reserve(cost, champion=HEAD)(HEAD) == pytest.approx(seen)
    assert reserve(cost, robustness_margin=0.05)(HEAD) == reserve(cost)(HEAD), "nobody is to be succeeded"
