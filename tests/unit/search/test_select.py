"""Reading a ledger."""

from __future__ import annotations

from collections.abc import Callable

from autovision.records.trials import TrialResult, TrialState
from autovision.search.progress import ProgressEvent
from autovision.search.select import best_trial, counts

Line = Callable[..., TrialResult]


def test_the_best_has_the_highest_value_and_weights_to_go_with_it(line: Line) -> None:
    ledger = [line(0, 0.7), line(1, 0.9, weights_key=None), line(2, 0.8), line(3, None)]
    best = best_trial(ledger)
    assert best is not None
    assert best.number == 2


def test_the_earlier_of_two_equals_wins_in_any_order(line: Line) -> None:
    ledger = [line(4, 0.8), line(2, 0.8), line(3, 0.8)]
    for each in (ledger, ledger[::-1]):
        best = best_trial(each)
        assert best is not None
        assert best.number == 2


def test_a_pruned_or_stopped_trial_can_be_the_best(line: Line) -> None:
    best = best_trial([line(0, 0.7), line(1, 0.9, state=TrialState.PRUNED)])
    assert best is not None
    assert best.number == 1


def test_nothing_is_the_best_of_nothing(line: Line) -> None:
    assert best_trial([]) is None
    assert best_trial([line(0, None)]) is None


def test_every_trial_is_counted_once(line: Line) -> None:
    ledger = [
        line(0, 0.7),
        line(1, 0.75, state=TrialState.STOPPED),
        line(2, 0.72, state=TrialState.PRUNED),
        line(3, None),
        line(4, None, state=TrialState.STOPPED),
        line(5, 0.6, state=TrialState.FAILED),
    ]
    found = counts(ledger, "accuracy")
    assert [found[name] for name in ("complete", "pruned", "failed", "late")] == [2, 1, 2, 1]
    assert found["best_value"] == 0.75
    assert found["best_config"] == ledger[1].config
    event = ProgressEvent(elapsed_s=130.0, budget_s=120.0, **found)
    assert (event.done, event.left_s) == (6, 0.0)


def test_the_counts_of_an_empty_ledger() -> None:
    event = ProgressEvent(elapsed_s=20.0, budget_s=120.0, **counts([], "accuracy"))
    assert (event.done, event.best_value, event.left_s) == (0, None, 100.0)
