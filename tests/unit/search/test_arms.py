"""Choosing which frozen features to work on."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from autovision.search.arms import arm_of, arms_of
from autovision.space import Choice, Float, Integer, Space


class Small(Space):
    backbone = Choice("resnet18", "resnet34")
    resolution = 64
    unfreeze = Integer(0, 1)
    drop_stages = Integer(0, 2)
    lr = Float(1e-4, 1e-1, log=True)


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
