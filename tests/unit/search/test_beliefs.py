"""Choosing which frozen features to work on."""

from __future__ import annotations

import numpy as np
import pytest

from autovision.search.arms import Arm, ArmRecord
from autovision.search.beliefs import Beliefs, Scale, choose, expected_improvement


def arm(name: str, augmentation: str = "none") -> Arm:
    return (("backbone", name), ("augmentation", augmentation))


def beliefs(records: dict[Arm, ArmRecord], **gflops: float) -> Beliefs:
    views = {"none": 1.0, "flip": 2.0, "dihedral": 8.0}
    return Beliefs(
        list(records),
        lambda arm: Scale(gflops.get(dict(arm)["backbone"], 1.0), views[dict(arm)["augmentation"]]),
    )


def test_the_cheapest_comes_first_when_nothing_is_known() -> None:
    records = {arm("big"): ArmRecord(), arm("small"): ArmRecord()}
    seconds = {arm("big"): 9.0, arm("small"): 3.0}
    assert choose(beliefs(records), records, seconds.__getitem__, 100.0) == arm("small")


def test_what_does_not_fit_into_the_rest_of_the_budget_is_not_begun() -> None:
    records = {arm("big"): ArmRecord(), arm("known"): ArmRecord(values=[0.5], seconds=[99.0], each_s=[99.0])}
    seconds = {arm("big"): 80.0, arm("known"): 101.0}
    assert choose(beliefs(records), records, seconds.__getitem__, 100.0) is None
    records[arm("small")] = ArmRecord()
    assert choose(
        beliefs(records), records, lambda a: 30.0 if a == arm("small") else seconds[a], 100.0
    ) == arm("small")


def test_a_search_that_has_nothing_yet_begins_with_the_cheapest_even_if_it_hardly_fits() -> None:
    records = {arm("big"): ArmRecord(), arm("small"): ArmRecord()}
    cost = {arm("big"): 500.0, arm("small"): 90.0}
    assert choose(beliefs(records), records, cost.__getitem__, 100.0) == arm("small")


def test_a_well_explored_arm_gives_way_to_a_new_one_and_a_bad_one_stays_behind() -> None:
    records = {
        arm("known"): ArmRecord(values=[0.8] * 40, seconds=[1.0] * 40),
        arm("bad"): ArmRecord(values=[0.7] * 3, seconds=[1.0] * 3),
        arm("new"): ArmRecord(),
    }
    cost = {arm("known"): 1.0, arm("bad"): 1.0, arm("new"): 10.0}
    assert choose(beliefs(records), records, cost.__getitem__, 100.0) == arm("new")
    records[arm("known")] = ArmRecord(values=[0.8], seconds=[1.0])
    assert choose(beliefs(records), records, cost.__getitem__, 100.0) == arm("known")


def test_until_the_first_result_all_workers_share_one_arm_and_then_they_spread() -> None:
    cost = {arm("first"): 9.0, arm("second"): 8.0}
    records = {arm("first"): ArmRecord(running=1), arm("second"): ArmRecord()}
    assert choose(beliefs(records), records, cost.__getitem__, 100.0) == arm("first")
    records = {arm("first"): ArmRecord(values=[0.8] * 9, running=1), arm("second"): ArmRecord(running=0)}
    assert choose(beliefs(records), records, cost.__getitem__, 100.0) == arm("second")


def test_an_arm_whose_model_could_not_be_finished_in_time_is_not_begun() -> None:
    records = {arm("small"): ArmRecord(values=[0.5] * 9, seconds=[1.0]), arm("big"): ArmRecord()}
    cost = {arm("small"): 1.0, arm("big"): 2.0}
    assert choose(beliefs(records), records, cost.__getitem__, 100.0) == arm("big")
    late = {arm("small"): 0.0, arm("big"): 98.0}
    found = choose(beliefs(records), records, cost.__getitem__, 100.0, late.__getitem__)
    assert found == arm("small")


def test_larger_networks_and_more_views_are_expected_to_be_better_and_nothing_is_sure_before_it_is_tried() -> (
    None
):
    arms = [arm(name, view) for name in ("small", "big") for view in ("none", "flip", "dihedral")]
    records = {each: ArmRecord() for each in arms}
    records[arm("small")] = ArmRecord(values=[0.8, 0.81, 0.8], seconds=[1.0] * 3)
    mean, sd = beliefs(records, small=1.0, big=4.0).of(records)
    assert mean[0] == pytest.approx(0.81, abs=0.005)
    assert mean[0] < mean[1] < mean[2]
    assert mean[0] < mean[3] < mean[5]
    assert sd[0] < min(sd[1:]) / 3


def test_what_a_view_did_with_one_backbone_is_expected_of_it_with_another() -> None:
    arms = [arm(name, view) for name in ("small", "big") for view in ("none", "flip")]
    records = {each: ArmRecord() for each in arms}
    records[arm("small")] = ArmRecord(values=[0.8, 0.8], seconds=[1.0] * 2)
    records[arm("big")] = ArmRecord(values=[0.84, 0.84], seconds=[1.0] * 2)
    before, _ = beliefs(records).of(records)
    records[arm("small", "flip")] = ArmRecord(values=[0.6, 0.6], seconds=[1.0] * 2)
    after, _ = beliefs(records).of(records)
    at = arms.index(arm("big", "flip"))
    assert after[at] < before[at] - 0.05
    assert after[at] > 0.6, "the backbone is the better one"


@pytest.mark.parametrize("unit", [1.0, 100.0])
def test_how_far_apart_values_are_is_learnt_from_them(unit: float) -> None:
    """The log loss of one data set is not that of another: only the arms tried say what is much."""
    arms = [arm(f"b{i}") for i in range(9)]
    values = np.linspace(0.0, 1.0, 8)
    records = {each: ArmRecord(values=[unit * v] * 3) for each, v in zip(arms, values, strict=False)}
    records[arms[8]] = ArmRecord()
    _, sd = beliefs(records).of(records)
    assert 0.1 * unit < sd[8] < unit


def test_an_arm_that_only_failed_is_expected_to_be_worse_than_any_that_did_not() -> None:
    records = {
        arm("good"): ArmRecord(values=[0.8]),
        arm("broken"): ArmRecord(failed=2),
        arm("new"): ArmRecord(),
    }
    mean, _ = beliefs(records).of(records)
    assert mean[1] < mean[2] < mean[0] + 0.01


def test_expected_improvement_is_what_draws_say() -> None:
    drawn = np.random.default_rng(0).normal(0.5, 0.1, 200_000)
    (said,) = expected_improvement(np.array([0.5]), np.array([0.1]), 0.55)
    assert said == pytest.approx(np.maximum(drawn - 0.55, 0.0).mean(), rel=0.02)


def test_where_trials_of_an_arm_differ_by_noise_alone_more_of_them_promise_little() -> None:
    rng = np.random.default_rng(0)
    values = (0.85 + 0.01 * rng.standard_normal(30)).tolist()
    records = {arm("known"): ArmRecord(values=values, seconds=[1.0] * 30), arm("new"): ArmRecord()}
    _, plain = beliefs(records).of(records)
    _, sd = beliefs(records).of(records, noise=0.01)
    assert sd[0] < plain[0] / 3 and sd[1] == pytest.approx(plain[1], rel=0.1)
    cost = {arm("known"): 4.0, arm("new"): 400.0}
    assert choose(beliefs(records), records, cost.__getitem__, 900.0) == arm("known")
    assert choose(beliefs(records), records, cost.__getitem__, 900.0, noise=0.01) == arm("new")
