"""The verdict follows from the numbers, in all of its cases."""

from __future__ import annotations

import math
from typing import Any

import pytest

from autovision.demo.result import DemoResult, Outcomes
from autovision.demo.verdict import Change, gain, judge, paired_gain, unpaired_gain
from autovision.records.models import Interval


def interval(value: float, half: float) -> Interval:
    return Interval(value=value, low=value - half, high=value + half)


def outcomes(fixed: int, broken: int, *, right: int = 200, wrong: int = 50) -> Outcomes:
    return Outcomes(both_right=right, fixed=fixed, broken=broken, both_wrong=wrong)


def test_paired_gain_is_the_adjusted_wald_interval() -> None:
    # By hand: p12 = 21/102, p21 = 6/102; their difference 0.14706, half width 1.95996 * sqrt(0.24308 / 102).
    found = paired_gain(outcomes(20, 5, right=60, wrong=15))
    assert found.interval.value == pytest.approx(0.15)
    assert found.interval.low == pytest.approx(0.05138, abs=1e-4)
    assert found.interval.high == pytest.approx(0.24274, abs=1e-4)


def test_unpaired_gain_squares_and_adds() -> None:
    found = unpaired_gain(interval(0.5, 0.03), interval(0.6, 0.04))
    assert found.interval.value == pytest.approx(0.1)
    assert found.interval.low == pytest.approx(0.05)
    assert found.interval.high == pytest.approx(0.15)


def test_pairs_are_used_where_they_are_known(tell: Any, result: DemoResult) -> None:
    assert gain(result, "poly").paired
    assert not gain(tell(outcomes={}), "poly").paired


@pytest.mark.parametrize(
    ("fixed", "broken", "change"), [(40, 5, Change.BETTER), (5, 40, Change.WORSE), (9, 10, Change.SAME)]
)
def test_change_by_pairs(fixed: int, broken: int, change: Change) -> None:
    assert paired_gain(outcomes(fixed, broken)).change is change


def test_no_cells_say_nothing() -> None:
    assert paired_gain(outcomes(0, 0, right=0, wrong=0)).change is Change.UNKNOWN
    nan = Interval(value=math.nan, low=math.nan, high=math.nan)
    assert unpaired_gain(nan, nan).change is Change.UNKNOWN


@pytest.mark.parametrize(
    ("poly", "mono", "success", "said"),
    [
        ((289, 18), (9, 10), True, "Clearly better on poly cells (+49.3 points"),
        ((289, 18), (40, 5), True, "better on mono cells too"),
        ((289, 18), (5, 60), False, "worse on mono cells beyond noise"),
        ((20, 18), (9, 10), False, "Not clearly better on poly cells"),
        ((18, 150), (9, 10), False, "Worse on poly cells"),
    ],
)
def test_verdicts(tell: Any, poly: tuple[int, int], mono: tuple[int, int], success: bool, said: str) -> None:
    told = tell(outcomes={"poly": outcomes(*poly, right=150, wrong=93), "mono": outcomes(*mono)})
    verdict = judge(told)
    assert verdict.success is success
    assert said in verdict.text


def test_unchanged_production_is_no_success_and_tells_why(tell: Any, result: DemoResult) -> None:
    refused = result.decisions[-1].with_(accepted=False, why="mono fell by 0.05 beyond noise")
    told = tell(after=result.before, decisions=(*result.decisions[:-1], refused))
    verdict = judge(told)
    assert not verdict.success
    assert "no second model was promoted" in verdict.text
    assert "mono fell by 0.05 beyond noise" in verdict.text


def test_a_model_no_better_than_the_most_frequent_class_is_called_that(tell: Any, result: DemoResult) -> None:
    poly = result.after.poly.model_copy(update={"majority_accuracy": 0.81})
    assert "no more accurate than always answering" in judge(tell(after=result.after.with_(poly=poly))).text


def test_accuracy_bought_with_the_rarer_class_is_said(tell: Any, result: DemoResult) -> None:
    poly = result.after.poly.model_copy(update={"balanced_accuracy": interval(0.4, 0.02)})
    text = judge(tell(after=result.after.with_(poly=poly))).text
    assert "balanced accuracy went from 0.493 to 0.400" in text
