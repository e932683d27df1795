"""Earlier windows: which of them are normal by now, and which are taken together with the newest one.

A window that raises no alarm joins what is normal. One that alarms by itself is left out of everything later: what is
plainly different is told by its own report, and must neither become normal nor keep longer windows alarming when all is
well again. One that alarms only together with earlier ones stays among the latest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from autovision.monitoring.rows import Rows
from autovision.records.deployments import DriftReport

MOST_WINDOWS = 40
"""earlier windows that are read, drawn at random"""


@dataclass(frozen=True)
class Past:
    """The latest windows of a scale, and what is normal without them."""

    recent: tuple[DriftReport, ...]
    """that go together with the newest window"""
    normal: tuple[DriftReport, ...]


def past(reports: Sequence[DriftReport], windows: int, rng: np.random.Generator) -> Past | None:
    """What to compare the latest `windows` with; None: there are not so many yet.

    Args:
        reports: of the model, the oldest first, without the newest window's.
    """
    usable = [each for each in reports if each.rows is not None and not alarms_alone(each)]
    if len(usable) < windows - 1:
        return None
    before = [each for each in usable[: len(usable) - (windows - 1)] if not each.alarm]
    if len(before) > MOST_WINDOWS:
        before = [before[i] for i in np.sort(rng.permutation(len(before))[:MOST_WINDOWS])]
    return Past(tuple(usable[len(usable) - (windows - 1) :]), tuple(before))


def alarms_alone(report: DriftReport) -> bool:
    """Whether its window raises an alarm without those before it."""
    if not report.detectors:
        return report.alarm
    return any(each.alarm and each.windows == 1 for each in report.detectors)


class Shelf:
    """Rows of earlier windows, each read once."""

    def __init__(self, read: Callable[[Sequence[str]], dict[str, Rows]]) -> None:
        self._read = read
        self._rows: dict[str, Rows] = {}

    def of(self, reports: Sequence[DriftReport]) -> list[Rows]:
        """Those of some windows, in order; what is gone or cannot be read is left out."""
        wanted = [each.rows for each in reports if each.rows is not None]
        missing = [which for which in wanted if which not in self._rows]
        if missing:
            self._rows.update(self._read(missing))
        return [self._rows[which] for which in wanted if which in self._rows]
