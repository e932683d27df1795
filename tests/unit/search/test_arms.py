"""Choosing which frozen features to work on."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from autovision.search.arms import Arm, ArmRecord, arm_of, arms_of, choose
from autovision.space import Choice, Float, Integer, Space


class Small(Space):
    backbone = Choice("resnet18", "resnet34")
    resolution = 64
    unfreeze = Integer(0, 1)
    drop_stages = Integer(0, 2)
    lr = Float(1e-4, 1e-1, log=True)


def arm(name: str) -> Arm:
    return (("backbone", name),)


def test_depth_belongs_to_an_arm_only_where_something_is_unfrozen() -> None:
    arms = arms_of(Small())
    assert (("backbone", "resnet18"), ("unfreeze", 0)) in arms
    assert (("backbone", "resnet34"), ("unfreeze", 1), ("drop_stages", 2)) in arms
    assert len(arms) == 2 * (1 + 3)


@given(st.integers(0, 2**32 - 1))
def test_every_point_of_a_space_belongs_to_one_of_its_arms(seed: int) -> None:
    import numpy as np

    space = Small()
    point = space.sample(np.random.default_rng(seed))
    found = arm_of(point, arms_of(space))
    assert found is not None
    assert all(point[name] == value for name, value in found)


def test_a_space_with_too_many_combinations_has_no_arms() -> None:
    class Wide(Small):
        resolution = Integer(32, 512)

    assert arms_of(Wide()) == []


def test_the_cheapest_comes_first_when_nothing_is_known() -> None:
    records = {arm("big"): ArmRecord(), arm("small"): ArmRecord()}
    seconds = {arm("big"): 9.0, arm("small"): 3.0}
    assert choose(records, seconds.__getitem__, 100.0) == arm("small")


def test_what_does_not_fit_into_the_rest_of_the_budget_is_not_begun() -> None:
    records = {arm("big"): ArmRecord(), arm("known"): ArmRecord(values=[0.5], seconds=[99.0])}
    assert choose(records, lambda _: 60.0, 100.0) is None
    records[arm("small")] = ArmRecord()
    assert choose(records, lambda a: 30.0 if a == arm("small") else 60.0, 100.0) == arm("small")


def test_a_search_that_has_nothing_yet_begins_with_the_cheapest_even_if_it_hardly_fits() -> None:
    records = {arm("big"): ArmRecord(), arm("small"): ArmRecord()}
    cost = {arm("big"): 500.0, arm("small"): 90.0}
    assert choose(records, cost.__getitem__, 100.0) == arm("small")


def test_a_well_explored_arm_gives_way_to_a_new_one_and_a_bad_one_stays_behind() -> None:
    records = {
        arm("known"): ArmRecord(values=[0.8] * 40, seconds=[1.0] * 40),
        arm("bad"): ArmRecord(values=[0.5] * 3, seconds=[1.0] * 3),
        arm("new"): ArmRecord(),
    }
    cost = {arm("known"): 1.0, arm("bad"): 1.0, arm("new"): 10.0}
    assert choose(records, cost.__getitem__, 100.0) == arm("new")
    records[arm("known")] = ArmRecord(values=[0.8], seconds=[1.0])
    assert choose(records, cost.__getitem__, 100.0) == arm("known")


def test_until_the_first_result_all_workers_share_one_arm_and_then_they_spread() -> None:
    cost = {arm("first"): 9.0, arm("second"): 8.0}
    records = {arm("first"): ArmRecord(running=1), arm("second"): ArmRecord()}
    assert choose(records, cost.__getitem__, 100.0) == arm("first")
    records = {arm("first"): ArmRecord(values=[0.8] * 9, running=1), arm("second"): ArmRecord(running=0)}
    assert choose(records, cost.__getitem__, 100.0) == arm("second")
