"""Asynchronous successive halving."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from autovision.search.pruner import AsyncHalving

VALUES = st.floats(0, 1, allow_nan=False)


def test_until_there_is_something_to_compare_with_all_go_on() -> None:
    pruner = AsyncHalving(reduction=3)
    assert [pruner.goes_on("head", 0, value) for value in (0.9, 0.1)] == [True, True]
    assert not pruner.goes_on("head", 0, 0.5)


def test_nan_is_the_worst_value_even_for_the_first_to_arrive() -> None:
    assert not AsyncHalving().goes_on("head", 0, math.nan)


def test_kinds_and_rungs_are_compared_among_themselves() -> None:
    pruner = AsyncHalving(reduction=3)
    for value in (0.9, 0.91, 0.92):
        pruner.goes_on("fine-tuned", 0, value)
    assert pruner.goes_on("head", 0, 0.1)
    assert pruner.goes_on("fine-tuned", 1, 0.1)


@given(st.lists(VALUES, min_size=3, max_size=60))
def test_the_best_so_far_always_goes_on_and_the_worst_of_many_never(values: list[float]) -> None:
    pruner = AsyncHalving(reduction=3)
    for at, value in enumerate(values):
        goes_on = pruner.goes_on("head", 0, value)
        seen = values[: at + 1]
        if value == max(seen):
            assert goes_on
        elif len(seen) >= 3 and sum(other > value for other in seen) >= len(seen) // 3:
            assert not goes_on
