"""Which trials go on, by the figures that they report."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autovision.errors import InvalidInput
from autovision.search.schedulers import (
    SCHEDULERS,
    Halving,
    MedianStopping,
    PlainHalving,
    Report,
    Scheduler,
    Verdict,
    scheduler_of,
)

VALUES = st.floats(0, 1, allow_nan=False)


def report(trial: int, value: float, cost_s: float = 1.0, **changes: object) -> Report:
    fields = {"kind": "fine-tuned", "rung": 0, "done": False} | changes
    return Report(str(trial), cost_s=cost_s, value=value, **fields)  # type: ignore[arg-type]


def verdicts(scheduler: Scheduler, *values: float, **changes: object) -> list[Verdict]:
    return [scheduler.judge(report(n, value, **changes)) for n, value in enumerate(values)]  # type: ignore[arg-type]


@pytest.mark.parametrize("name", SCHEDULERS)
def test_until_there_is_something_to_compare_with_all_go_on(name: str) -> None:
    first = verdicts(scheduler_of(name), 0.9, 0.1, 0.05)
    assert first[:2] == [Verdict.GO_ON, Verdict.GO_ON]
    behind = {"halving": Verdict.PAUSE, "asha": Verdict.STOP, "median": Verdict.STOP, "none": Verdict.GO_ON}
    assert first[2] is behind[name]


@pytest.mark.parametrize("name", SCHEDULERS)
def test_nan_is_the_worst_value_even_for_the_first_to_arrive(name: str) -> None:
    assert verdicts(scheduler_of(name), math.nan) == [Verdict.STOP]


def test_kinds_are_compared_among_themselves() -> None:
    scheduler = Halving()
    verdicts(scheduler, 0.9, 0.91, 0.92)
    assert scheduler.judge(report(9, 0.1, kind="head")) is Verdict.GO_ON


def test_trials_are_compared_at_equal_cost_whatever_their_epochs() -> None:
    scheduler = Halving()
    for number, value in enumerate((0.8, 0.82, 0.84)):
        scheduler.judge(report(number, value, cost_s=1.0, rung=0))
    assert scheduler.judge(report(7, 0.6, cost_s=9.0, rung=0)) is Verdict.GO_ON, "nobody has come so far"
    assert scheduler.judge(report(8, 0.6, cost_s=1.1, rung=1)) is Verdict.PAUSE
    # By rungs it is the other way round.
    plain = PlainHalving()
    for number, value in enumerate((0.8, 0.82, 0.84)):
        plain.judge(report(number, value, cost_s=1.0, rung=0))
    assert plain.judge(report(7, 0.6, cost_s=9.0, rung=0)) is Verdict.STOP


def test_who_has_ended_for_less_is_one_to_beat() -> None:
    scheduler = Halving()
    for number, value in enumerate((0.8, 0.82, 0.84)):
        scheduler.judge(report(number, value, cost_s=1.0, done=True))
    assert scheduler.judge(report(7, 0.83, cost_s=100.0)) is Verdict.PAUSE
    assert scheduler.judge(report(8, 0.85, cost_s=100.0)) is Verdict.GO_ON


def test_a_trial_counts_once_at_each_cost_with_its_latest_value() -> None:
    scheduler = Halving()
    scheduler.judge(report(0, 0.2, cost_s=1.0))
    scheduler.judge(report(0, 0.3, cost_s=1.2, rung=1))
    scheduler.judge(report(0, 0.5, cost_s=27.0, rung=2))
    assert scheduler.scores(report(9, 0.0, cost_s=1.0)) == [0.3]
    assert scheduler.scores(report(9, 0.0, cost_s=9.0)) == [0.3], "it passed there with what it had"
    assert scheduler.scores(report(9, 0.0, cost_s=27.0)) == [0.5]
    assert scheduler.scores(report(9, 0.0, cost_s=81.0)) == []


def test_a_paused_trial_is_promoted_when_it_comes_to_be_among_the_best() -> None:
    scheduler = Halving()
    assert verdicts(scheduler, 0.9, 0.8, 0.7)[2] is Verdict.PAUSE
    scheduler.waits("2")
    assert scheduler.promoted() == []
    for number, value in enumerate((0.1, 0.2, 0.3, 0.4, 0.5, 0.6), start=3):
        scheduler.judge(report(number, value))
    scheduler.waits("8")
    scheduler.waits("4")
    assert scheduler.promoted() == ["2"], "of nine, the best three"
    assert list(scheduler.best_first()) == ["2", "8", "4"]
    scheduler.waits_no_more("2")
    assert scheduler.promoted() == [] and list(scheduler.best_first()) == ["8", "4"]


def test_paused_trials_are_compared_where_they_were_paused_and_told_the_best_first() -> None:
    scheduler = Halving()
    for number, (value, cost_s) in enumerate([(0.9, 1.0), (0.8, 1.0), (0.3, 9.0), (0.2, 9.0), (0.1, 9.0)]):
        scheduler.judge(report(number, value, cost_s=cost_s))
        scheduler.waits(str(number))
    assert scheduler.promoted() == ["0", "1", "2"], "two others at the first cost are nothing to compare with"
    assert list(scheduler.best_first()) == ["0", "1", "2", "3", "4"]


def test_the_median_is_what_a_trial_must_not_fall_behind() -> None:
    scheduler = MedianStopping()
    assert verdicts(scheduler, 0.1, 0.5, 0.3, 0.2) == [Verdict.GO_ON] * 3 + [Verdict.STOP]


def test_an_unknown_scheduler_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(
        InvalidInput, match=r"no scheduler 'medium'; choose one of .*; did you mean 'median'\?$"
    ):
        scheduler_of("medium")
    for name in ("pbt", "PBT", "population_based"):
        with pytest.raises(
            InvalidInput, match=r"choose one of halving, asha, median, none.*no configuration"
        ):
            scheduler_of(name)


@given(st.lists(VALUES, min_size=3, max_size=60))
def test_the_best_so_far_always_goes_on_and_the_worst_of_many_never(values: list[float]) -> None:
    scheduler = Halving()
    for at, value in enumerate(values):
        verdict = scheduler.judge(report(at, value))
        seen = values[: at + 1]
        if value == max(seen):
            assert verdict is Verdict.GO_ON
        elif len(seen) >= 3 and sum(other > value for other in seen) >= len(seen) // 3:
            assert verdict is Verdict.PAUSE


@given(st.lists(st.tuples(VALUES, st.integers(0, 6)), min_size=1, max_size=40), st.randoms())
def test_what_is_needed_does_not_depend_on_the_order_in_which_trials_reported(
    told: list[tuple[float, int]], random: object
) -> None:
    reports = [report(n, value, cost_s=0.01 * 3**level) for n, (value, level) in enumerate(told)]
    shuffled = list(reports)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    one, other = Halving(), Halving()
    for each, there in zip(reports, shuffled, strict=True):
        one.judge(each)
        other.judge(there)
    assert [one.needed(each) for each in reports] == [other.needed(each) for each in reports]
