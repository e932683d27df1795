"""A running search is a live panel on a terminal, and a plain line now and then elsewhere."""

from __future__ import annotations

import io
import math
from dataclasses import FrozenInstanceError, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from autovision.console import SearchProgress, format_seconds, resample, short_config, sparkline
from autovision.search.progress import ProgressEvent
from autovision.space.config import TrialConfig

START = ProgressEvent(elapsed_s=0.0, budget_s=120.0, running=2)
CONFIG = {"backbone": "tf_efficientnet_lite1", "lr": 0.003, "head": "mlp", "unfreeze": 0}


class Clock:
    """Seconds that stand still until told otherwise."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def plain(*events: ProgressEvent) -> list[str]:
    file = io.StringIO()
    with SearchProgress(120.0, Console(file=file, width=60), "accuracy") as progress:
        for event in events:
            progress.update(event)
    return file.getvalue().splitlines()


def test_plain_lines_hold_the_state_and_never_wrap() -> None:
    event = replace(
        START, elapsed_s=31, complete=6, pruned=9, failed=1, best_value=0.8534, best_config=CONFIG
    )
    assert plain(event) == [
        "[   31 s of 120 s] trials: 6 complete, 9 pruned, 1 failed, 2 running, about 46 to come; best "
        "accuracy 0.8534 (efficientnet_lite1 · lr 0.003 · mlp)"
    ]


def test_what_is_to_come_converges_to_what_came() -> None:
    """Ten trials in ten seconds, and then one in five; 20 s at the end are for the finish."""
    seen = [(10, 10), (25, 13), (50, 18), (75, 23), (99, 28), (100, 28)]
    events = [replace(START, elapsed_s=at, complete=count, finishing_s=20.0, most=None) for at, count in seen]
    sums = [event.done + (event.more or 0) for event in events]
    off = [abs(each - 28) for each in sums]
    assert off == sorted(off, reverse=True) and sums[-1] == 28
    few = replace(events[0], most=12)
    assert (events[0].more, few.more) == (90, 2)
    assert replace(START, elapsed_s=10, complete=4).more is None, "too few to say"


def test_plain_lines_come_at_most_every_five_seconds() -> None:
    events = [replace(START, elapsed_s=second / 2, complete=second) for second in range(41)]
    assert [line[:9] for line in plain(*events)] == [
        "[    0 s ",
        "[    5 s ",
        "[   10 s ",
        "[   15 s ",
        "[   20 s ",
    ]


def test_an_improvement_is_told_at_once() -> None:
    events = [
        START,
        replace(START, elapsed_s=1, best_value=0.5),
        replace(START, elapsed_s=1.5, best_value=0.6),
    ]
    assert [line.rpartition(" ")[2] for line in plain(*events)[1:]] == ["0.5000", "0.6000"]


def test_no_change_is_no_line() -> None:
    assert len(plain(START, replace(START, elapsed_s=50), replace(START, elapsed_s=100))) == 1


def test_a_message_waits_for_the_next_line_and_is_never_lost() -> None:
    failed = replace(START, elapsed_s=1, failed=1, message="trial 4: loss was not finite")
    assert "    trial 4: loss was not finite" in plain(
        START, failed, replace(failed, elapsed_s=9, message=None)
    )
    assert plain(START, failed)[-1] == "    trial 4: loss was not finite"


def test_the_last_state_is_told_at_the_end() -> None:
    assert "3 complete" in plain(START, replace(START, elapsed_s=2, complete=3))[-1]


def test_a_value_that_is_no_number_is_none() -> None:
    assert plain(replace(START, best_value=math.nan))[0].endswith("no value yet")


def test_the_live_panel_shows_all_and_leaves_the_terminal_in_order() -> None:
    file = io.StringIO()
    console = Console(file=file, width=100, force_terminal=True, color_system=None)
    with SearchProgress(120.0, console, "accuracy", clock=Clock()) as progress:
        progress.update(replace(START, elapsed_s=3, best_value=0.5))
        progress.update(
            replace(
                START, elapsed_s=30, complete=6, pruned=9, best_value=0.8, best_config=CONFIG, message="hello"
            )
        )
    text = file.getvalue()
    for part in (
        "6 complete",
        "9 pruned",
        "0 failed",
        "2 running",
        "accuracy 0.8000",
        "1 min 30 s left",
        "▁",
        "█",
    ):
        assert part in text
    assert "efficientnet_lite1 · lr 0.003 · mlp" in text
    assert "hello" in text
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")


def test_seconds_run_on_between_events_but_not_beyond_the_budget() -> None:
    clock = Clock()
    console = Console(file=io.StringIO(), width=100, force_terminal=True, color_system=None)

    def left(progress: SearchProgress) -> str:
        shown = Console(file=io.StringIO(), width=100, color_system=None)
        shown.print(progress.render())
        return shown.file.getvalue()  # type: ignore[attr-defined, no-any-return]

    with SearchProgress(120.0, console, "accuracy", clock=clock) as progress:
        progress.update(replace(START, elapsed_s=100))
        clock.now = 8
        assert "12 s left" in left(progress)
        clock.now = 300
        assert "0.0 s left" in left(progress)


def test_after_close_nothing_is_shown() -> None:
    file = io.StringIO()
    progress = SearchProgress(120.0, Console(file=file), "accuracy")
    progress.close()
    progress.close()
    progress.update(START)
    assert file.getvalue() == ""


def test_events_are_frozen_and_know_what_is_left() -> None:
    event = replace(START, elapsed_s=130, complete=2, pruned=3, failed=1)
    assert (event.done, event.left_s) == (6, 0.0)
    with pytest.raises(FrozenInstanceError):
        event.complete = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (8.27, "8.3 s"),
        (9.96, "10 s"),
        (59.6, "1 min"),
        (125, "2 min 05 s"),
        (3600, "1 h 00 min"),
        (7500, "2 h 05 min"),
        (math.inf, "?"),
    ],
)
def test_seconds_in_words(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


def test_short_config_names_what_differs_from_the_defaults() -> None:
    full = TrialConfig(backbone="resnet18", unfreeze=2, confidence_weighting=True, mixup=0.2).model_dump()
    assert short_config(full) == "resnet18 · unfreeze 2 · mixup 0.2 · by confidence"
    assert short_config({}) == ""


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=30), st.booleans())
def test_a_sparkline_has_one_character_per_value(values: list[float], ascii_only: bool) -> None:
    line = sparkline(values, ascii_only=ascii_only)
    assert len(line) == len(values)
    assert not ascii_only or line.isascii()


def test_resampling_holds_each_value_until_the_next() -> None:
    assert resample([(0, 1.0), (9, 2.0), (10, 3.0)], 11) == [1.0] * 9 + [2.0, 3.0]
    assert resample([(5, 1.0)], 3) == [1.0, 1.0, 1.0]
    assert resample([], 3) == []
