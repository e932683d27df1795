"""The space of a re-search."""

from __future__ import annotations

from typing import Any

import pytest

from autovision.errors import InvalidSpace
from autovision.space import Choice, Constant, Float, Integer, Space
from autovision.space.continual import for_successor


class Heads(Space):
    backbone = "test_resnet"
    lr = Float(1e-3, 1e-1, log=True)


def extended(space: type[Space] | Space, old: int = 800, new: int = 40) -> Space:
    return Space.from_json(for_successor(space.to_json(), old, new))


def test_it_has_everything_of_the_deployments_and_what_changes_nothing_comes_first() -> None:
    space = extended(Heads)
    assert space.parameters.keys() == {*Heads.parameters, "new_weight", "distill"}
    assert (space.name, space.doc) == (Heads.name, Heads.doc)
    assert space.config(space.default()).digest == Heads.config(Heads.default()).digest
    assert space.parameters["new_weight"].holds(16.0) and space.parameters["distill"].holds(0.75)


def test_what_the_space_names_itself_stays() -> None:
    class Mine(Heads):
        new_weight = Float(1.0, 2.0)
        distill = 0.0

    space = extended(Mine)
    assert space.parameters["new_weight"] == Float(1.0, 2.0)
    assert space.parameters["distill"] == Constant(0.0)
    assert space == Mine()


def test_doing_it_twice_is_doing_it_once() -> None:
    once = for_successor(Heads.to_json(), 800, 40)
    assert for_successor(once, 800, 40) == once


@pytest.mark.parametrize(
    ("old", "new", "high"), [(800, 40, 16.0), (600, 100, 6.0), (600, 250, 2.4), (600, 500, 1.2)]
)
def test_new_images_together_count_as_the_old_ones_at_most(old: int, new: int, high: float) -> None:
    weight = extended(Heads, old, new).parameters["new_weight"]
    assert weight == Float(1.0, high, log=True, default=1.0)


@pytest.mark.parametrize(("old", "new"), [(500, 500), (500, 800), (500, 0), (0, 500)])
def test_where_new_images_are_as_many_there_is_nothing_to_weigh(old: int, new: int) -> None:
    assert "new_weight" not in extended(Heads, old, new).parameters
    assert "distill" in extended(Heads, old, new).parameters


@pytest.mark.parametrize(
    ("unfreeze", "when"),
    [
        (Integer(0, 2), {"unfreeze": (1, 2)}),
        (Choice(0, 3), {"unfreeze": (3,)}),
        (Integer(1, 2), None),
        (Constant(2), None),
    ],
)
def test_where_stages_may_be_unfrozen_they_may_be_held(unfreeze: Any, when: Any) -> None:
    space = extended(type("Deep", (Heads,), {"unfreeze": unfreeze}))
    assert space.parameters["l2_sp"] == Choice(0.0, 1e-3, 1e-2, 1e-1, when=when)


def test_heads_alone_have_nothing_to_hold() -> None:
    assert "l2_sp" not in extended(Heads).parameters
    assert "l2_sp" not in extended(type("Frozen", (Heads,), {"unfreeze": 0})).parameters


def test_what_is_no_space_is_refused() -> None:
    with pytest.raises(InvalidSpace):
        for_successor({}, 800, 40)
