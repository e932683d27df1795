"""Which earlier windows a new one is compared with."""

from datetime import UTC, datetime

import numpy as np

from autovision.monitoring.history import MOST_WINDOWS, past
from autovision.records.deployments import DetectorVerdict, DriftReport

AT = datetime(2026, 1, 1, tzinfo=UTC)


def report(number, *, alarm=0, rows=True):
    """`alarm`: the windows of the detector that raised it."""
    verdict = DetectorVerdict(
        name="input",
        alarm=bool(alarm),
        score=1.0,
        threshold=0.5,
        p_value=0.0001,
        alpha=0.001,
        windows=alarm or 1,
        n=100,
        reference_n=100,
    )
    return DriftReport(
        id=f"{number:04d}",
        deployment="d",
        model="m",
        n=100,
        reference_n=100,
        first_request="a",
        last_request="b",
        window_start=AT,
        window_end=AT,
        score=0.0,
        threshold=1.0,
        p_value=0.5,
        alpha=0.001,
        alarm=bool(alarm),
        created_at=AT,
        detectors=(verdict,),
        rows=f"{number:064x}" if rows else None,
    )


def ids(reports):
    return [int(each.id) for each in reports]


def seen(reports, windows):
    return past(reports, windows, np.random.default_rng(0))


def test_the_latest_windows_are_not_among_what_is_normal():
    reports = [report(i) for i in range(6)]
    assert (ids(seen(reports, 1).recent), ids(seen(reports, 1).normal)) == ([], [0, 1, 2, 3, 4, 5])
    assert (ids(seen(reports, 4).recent), ids(seen(reports, 4).normal)) == ([3, 4, 5], [0, 1, 2])


def test_too_few_windows_are_none():
    assert seen([], 1) is not None
    assert seen([report(i) for i in range(2)], 4) is None
    assert seen([report(i) for i in range(3)], 4) is not None


def test_alarms_of_single_windows_are_nowhere_and_those_of_several_only_recent():
    reports = [report(0), report(1, alarm=1), report(2, alarm=4), report(3), report(4, alarm=1), report(5)]
    found = seen(reports, 4)
    assert (ids(found.recent), ids(found.normal)) == ([2, 3, 5], [0])
    assert ids(seen(reports, 1).normal) == [0, 3, 5]


def test_older_reports_have_no_rows_to_compare_with():
    assert ids(seen([report(0, rows=False), report(1)], 1).normal) == [1]


def test_of_very_many_windows_some_are_drawn():
    reports = [report(i) for i in range(300)]
    found = ids(seen(reports, 16).normal)
    assert len(found) == MOST_WINDOWS and found == sorted(set(found)) and max(found) < 285
    assert min(found) < 60 and max(found) > 220, "from all times"
