"""A search as a report shows it."""

from __future__ import annotations

import math

from autovision.records.base import Record
from autovision.records.searches import SearchRequest, SearchState
from autovision.records.trials import TrialResult, TrialState
from autovision.search.requests import granted_s


class SearchView(Record):
    """One search: what was asked for, how it stands, and every trial."""

    title: str
    """e.g. `First search`"""
    request: SearchRequest
    state: SearchState
    trials: tuple[TrialResult, ...]

    @property
    def metric(self) -> str:
        return self.request.metric

    @property
    def winner(self) -> TrialResult | None:
        """The trial whose model was registered."""
        return next((trial for trial in self.trials if trial.trial == self.state.best_trial), None)

    @property
    def budget_s(self) -> float:
        """Wall seconds that it may use: what was asked for, or what that was extended to."""
        return granted_s(self.request, self.state)

    def count(self, state: TrialState) -> int:
        return sum(trial.state is state for trial in self.trials)

    def best_so_far(self) -> tuple[tuple[float, float], ...]:
        """(search seconds, best value until then) at each improvement, in order of time."""
        points = sorted(
            (point.search_s, point.metrics[self.metric])
            for trial in self.trials
            for point in trial.curve
            if math.isfinite(point.metrics.get(self.metric, math.nan)) and math.isfinite(point.search_s)
        )
        best: list[tuple[float, float]] = []
        for seconds, value in points:
            if not best or value > best[-1][1]:
                best.append((seconds, value))
        return tuple(best)
