"""Elements are escaped; scales and ticks are round and inside."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autovision.report.svg import Markup, Scale, nice_range, nice_ticks, tag, tick_format

NUMBERS = st.floats(-1e6, 1e6, allow_nan=False)


def test_text_and_attributes_are_escaped_and_markup_is_not() -> None:
    assert tag("p", "<b>&", title='"x"') == '<p title="&quot;x&quot;">&lt;b&gt;&amp;</p>'
    assert (
        tag("p", Markup("<b>x</b>"), class_="a", aria_label="b") == '<p class="a" aria-label="b"><b>x</b></p>'
    )
    assert tag("meta", name="n", content=None) == '<meta name="n"/>'


@given(NUMBERS, st.floats(1e-6, 1e6), st.integers(2, 10))
def test_ticks_are_inside_even_and_few(low: float, span: float, count: int) -> None:
    high = low + span
    ticks = nice_ticks(low, high, count)
    slack = 1e-6 * max(1.0, abs(low), span)
    assert len(ticks) <= count + 1
    assert all(low - slack <= tick <= high + slack for tick in ticks)
    assert ticks == sorted(ticks)


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0.0, 1.0, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (0.5, 0.9, [0.5, 0.6, 0.7, 0.8, 0.9]),
        (0.0, 120.0, [0, 50, 100]),
    ],
)
def test_ticks_are_round(low: float, high: float, ticks: list[float]) -> None:
    assert nice_ticks(low, high, 5 if high <= 1 else 4) == pytest.approx(ticks)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_a_range_holds_its_values_and_keeps_its_limits(values: list[float]) -> None:
    low, high = nice_range(values, floor=0.0, ceiling=1.0)
    assert low < high
    assert low <= min(values) + 1e-9
    assert high >= max(values) - 1e-9


def test_a_range_of_nothing_is_still_one() -> None:
    assert nice_range([]) == (0.0, 1.0)
    assert nice_range([math.nan, math.inf]) == (0.0, 1.0)
    low, high = nice_range([0.7])
    assert low < 0.7 < high


def test_tick_labels_have_just_the_decimals_they_need() -> None:
    assert [tick_format([0.0, 0.5, 1.0])(x) for x in (0.0, 0.5)] == ["0.0", "0.5"]
    assert tick_format([0.0, 50.0])(50.0) == "50"
    assert tick_format([0.5, 0.75])(-0.75) == "\N{MINUS SIGN}0.8"


def test_a_scale_maps_its_ends_and_survives_a_point() -> None:
    scale = Scale(0.0, 10.0, 100.0, 200.0)
    assert (scale(0), scale(5), scale(10)) == (100.0, 150.0, 200.0)
    assert Scale(3.0, 3.0, 0.0, 10.0)(3.0) == 5.0
