"""One thing that was photographed often is one thing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from autovision.monitoring.families import LEAST, repeats
from autovision.monitoring.reference import Reference
from autovision.monitoring.report import Observed, examine

AT = datetime(2026, 1, 2, tzinfo=UTC)
HASH = "0" * 60 + "{:04x}"


def test_the_same_bytes_and_what_is_nearly_the_same_are_one(capture):
    captures = [capture(i) for i in range(6)]
    captures[1] = captures[1].with_(image=captures[0].image)
    hashes = {
        captures[0].image: HASH.format(0),
        captures[2].image: HASH.format(0b11),
        captures[3].image: HASH.format(0b1111),
        captures[4].image: "f" * 64,
        captures[5].image: "",
    }
    captures.reverse()
    assert repeats(captures, hashes, 2) == {"r0001", "r0002", "r0003"}, "two steps of two bits hang together"
    assert repeats(captures, hashes, 1) == {"r0001"}
    assert repeats(captures, hashes, -1) == {"r0001"}, "where all looks alike by nature the bytes tell"
    assert repeats(captures, {}, 31) == {"r0001"}
    assert repeats([], {}, 31) == frozenset()


@pytest.fixture
def alarms(capture, embeddings):
    """How many of some windows without drift alarm, whose images were each photographed so often."""
    reference = Reference.of("m1", ("ok", "defective"), embeddings(200, np.random.default_rng(5)))

    def count(often, *, told, windows=12, different=20):
        rng = np.random.default_rng(1)
        found = []
        for _ in range(windows):
            rows = np.repeat(embeddings(different, rng), often, axis=0)
            rows += 0.05 * rng.normal(size=rows.shape)
            seen = [capture(i, embedding=row) for i, row in enumerate(rows)]
            again = frozenset(each.request_id for i, each in enumerate(seen) if i % often)
            report, kept = examine(
                "solar",
                reference,
                Observed(seen, repeats=again if told else frozenset()),
                windows_per_false_alarm=20,
                clock=lambda: AT + timedelta(hours=1),
            )
            assert report.n == often * different
            assert len(kept.embedded) == (different if told and different >= LEAST else report.n)
            found.append(report)
        return found

    return count


def test_what_was_photographed_often_alarms_no_oftener(alarms):
    assert sum(report.alarm for report in alarms(5, told=True)) <= 2
    assert sum(report.alarm for report in alarms(5, told=False)) >= 6, "else this would show nothing"


def test_a_camera_that_is_stuck_is_drift_and_said_to_be(alarms):
    (report,) = alarms(60, told=True, windows=1, different=1)
    assert report.alarm
    assert any("show 1 different images, so few" in note for note in report.notes)
    (burst,) = alarms(5, told=True, windows=1)
    assert any("100 requests show 20 different images, of each one" in note for note in burst.notes)
