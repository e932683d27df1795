"""Each kind of parameter on its own: quantiles, membership, the nearest value, the way it is written."""

from __future__ import annotations

import math
from collections import Counter
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from autovision.space import Choice, Constant, Float, Integer
from autovision.space.parameters import Parameter, same, shown

LAST = math.nextafter(1.0, 0.0)


@pytest.mark.parametrize(
    ("parameter", "first", "middle", "last"),
    [
        (Float(1.0, 3.0), 1.0, 2.0, 3.0),
        (Float(1e-4, 1e-2, log=True), 1e-4, 1e-3, 1e-2),
        (Float(0.0, 0.4, step=0.1), 0.0, 0.2, 0.4),
        (Integer(0, 2), 0, 1, 2),
        (Integer(1, 64, log=True), 1, 8, 64),
        (Choice("a", "b", "c"), "a", "a", "c"),
    ],
)
def test_quantiles_reach_both_ends_and_the_default_is_the_middle(
    parameter: Float | Integer | Choice, first: Any, middle: Any, last: Any
) -> None:
    assert parameter.at(0.0) == pytest.approx(first)
    assert parameter.at(LAST) == pytest.approx(last)
    assert parameter.start() == middle
    assert all(parameter.holds(parameter.at(u)) for u in (0.0, 0.1, 0.5, 0.9, LAST))


def test_a_declared_default_comes_first() -> None:
    assert Float(0.0, 1.0, default=0.0).start() == 0.0
    assert Integer(0, 9, default=0).start() == 0
    assert Choice(True, False, default=False).start() is False
    assert Choice(None, 224).start() is None
    assert Constant(None).start() is None


def test_whole_numbers_and_grid_values_are_equally_likely() -> None:
    draws = np.random.default_rng(0).random(20_000)
    for parameter, n in ((Integer(0, 3), 4), (Float(0.1, 0.5, step=0.1), 5), (Choice(*"abcd"), 4)):
        counts = Counter(parameter.at(u) for u in draws)
        assert len(counts) == n
        assert max(abs(count / len(draws) - 1 / n) for count in counts.values()) < 0.02


def test_logarithmic_ranges_give_each_decade_its_share() -> None:
    draws = np.random.default_rng(0).random(20_000)
    decades = Counter(math.floor(math.log10(Float(1e-4, 1e-1, log=True).at(u)) + 1e-12) for u in draws)
    assert all(abs(decades[decade] / len(draws) - 1 / 3) < 0.02 for decade in (-4, -3, -2))
    whole = Counter(Integer(1, 8, log=True).at(u) for u in draws)
    assert all(whole[smaller] > whole[larger] for smaller, larger in pairwise(range(1, 9)))


def test_steps_are_counted_in_decimals() -> None:
    assert [Float(0.0, 0.7, step=0.1).at((k + 0.5) / 8) for k in range(8)] == [
        0,
        0.1,
        0.2,
        0.3,
        0.4,
        0.5,
        0.6,
        0.7,
    ]
    assert Float(0.0, 0.7, step=0.1).holds(0.1 + 0.2)
    assert Float(0.0, 0.7, step=0.1).nearest(0.1 + 0.2) == 0.3
    assert not Float(0.0, 0.7, step=0.1).holds(0.25)


@pytest.mark.parametrize(
    ("parameter", "inside", "outside"),
    [
        (
            Float(0.0, 1.0),
            [0, 1, 0.5, True + 0.0],
            [-0.1, 1.1, math.nan, math.inf, None, "0.5", True, 10**400],
        ),
        (Integer(1, 3), [1, 3, 2.0], [0, 4, 2.5, True, None, "2", math.nan, math.inf, -(10**400)]),
        (Choice(1, "1", None), [1, 1.0, "1", None], [True, 2, "None", False, 0, [1]]),
        (Choice(False), [False], [0, 0.0, None, True]),
        (Constant(2), [2, 2.0], [3, "2", True, None]),
    ],
)
def test_membership_is_strict_about_types(
    parameter: Parameter, inside: list[Any], outside: list[Any]
) -> None:
    assert all(parameter.holds(value) for value in inside)
    assert not any(parameter.holds(value) for value in outside)


@pytest.mark.parametrize(
    ("parameter", "value", "nearest"),
    [
        (Float(0.0, 1.0), 7, 1.0),
        (Float(0.0, 1.0), -math.inf, 0.0),
        (Float(0.0, 1.0), 10**400, 1.0),
        (Float(0.0, 1.0, default=0.2), math.nan, 0.2),
        (Float(0.0, 1.0, default=0.2), None, 0.2),
        (Float(0.0, 1.0, default=0.2), True, 0.2),
        (Float(0.0, 1.0, step=0.25), 0.4, 0.5),
        (Integer(1, 5), 2.6, 3),
        (Integer(1, 5), math.inf, 5),
        (Integer(1, 5, default=2), "4", 2),
        (Choice(160, 224), 224.0, 224),
        (Choice(160, 224), 192, 160),
        (Choice(160, 224, default=224), 192, 224),
        (Constant("adamw"), "sgd", "adamw"),
    ],
)
def test_the_nearest_value_is_held(parameter: Parameter, value: Any, nearest: Any) -> None:
    assert parameter.nearest(value) == nearest
    assert type(parameter.nearest(value)) is type(nearest)
    assert parameter.holds(parameter.nearest(value))


@pytest.mark.parametrize(
    "written",
    [
        "Float(0.1, 1.0)",
        "Float(0.1, 1.0, log=True, default=0.5, when={'unfreeze': (1, 2)})",
        "Float(0.0, 1.0, step=0.5)",
        "Integer(0, 2)",
        "Choice('a', None, 3, True, default=3)",
        "Constant(None)",
    ],
)
def test_a_parameter_is_shown_as_it_is_written(written: str) -> None:
    kinds = {"Float": Float, "Integer": Integer, "Choice": Choice, "Constant": Constant}
    assert repr(eval(written, kinds)) == written


def test_parameters_are_frozen_and_compare_by_value() -> None:
    parameter = Integer(0, 2, when={"head": "mlp"})
    with pytest.raises(AttributeError):
        parameter.low = 1  # type: ignore[misc]
    assert parameter == Integer(0, 2, when={"head": ["mlp"]})
    assert parameter != Integer(0, 2)
    assert len({parameter, Integer(0, 2, when={"head": ("mlp",)}), Choice(1), Choice(1)}) == 2


def test_equality_tells_true_from_one() -> None:
    assert same(1, 1.0)
    assert not same(1, True)
    assert not same("1", 1)
    assert same(None, None)


def test_huge_numbers_are_shown_by_their_size() -> None:
    assert shown([10**5000]) == "[an int of 16610 bits]"
