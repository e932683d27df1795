"""What a running search tells whoever watches it: plain data, so that every front end can show it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_FEWEST = 5
"""trials that ended, before their pace says anything"""


@dataclass(frozen=True)
class ProgressEvent:
    """The state of a search at one moment."""

    elapsed_s: float
    """seconds spent, over all attempts"""
    budget_s: float
    running: int = 0
    """trials at work now"""
    paused: int = 0
    """trials that fell behind, and go on if they come to be among the best"""
    complete: int = 0
    """trials that ran to their last rung, or were cut short by the end of the budget with a value"""
    pruned: int = 0
    failed: int = 0
    late: int = 0
    """trials that the end of the budget left without a value"""
    best_value: float | None = None
    """the search's metric on validation; None: no trial has reported yet"""
    best_config: Mapping[str, Any] = field(default_factory=dict)
    """the configuration that gave `best_value`"""
    most: int | None = None
    """trials that the search may begin in all; None: as many as the budget allows"""
    finishing_s: float = 0.0
    """at the end of the budget, in which no trials run"""
    message: str | None = None
    """something worth a line of its own, e.g. why a trial failed"""

    @property
    def done(self) -> int:
        """Trials that ended, however they ended."""
        return self.complete + self.pruned + self.failed + self.late

    @property
    def left_s(self) -> float:
        """Seconds left of the budget, never negative."""
        return max(0.0, self.budget_s - self.elapsed_s)

    @property
    def more(self) -> int | None:
        """About how many more trials should end, at the pace so far; None: too early to say.

        What ended is known and the seconds for more become fewer, so that the sum of both converges.
        """
        if self.done < _FEWEST or self.elapsed_s <= 0:
            return None
        found = round(self.done / self.elapsed_s * max(0.0, self.left_s - self.finishing_s))
        return found if self.most is None else min(found, max(0, self.most - self.done))
