"""What a deployment's re-searches tell its policy: pure functions of their requests and states."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import takewhile

from autovision.records.deployments import DriftReport
from autovision.records.searches import SearchRequest, SearchState, SearchStatus

Searches = Sequence[tuple[SearchRequest, SearchState]]


@dataclass(frozen=True)
class History:
    """A deployment's searches; its re-searches are those that start from a champion."""

    searches: Searches
    re_searches: Searches

    @classmethod
    def of(cls, everywhere: Iterable[tuple[SearchRequest, SearchState]], deployment: str) -> History:
        """Of all searches, oldest first, those of a deployment."""
        own = [pair for pair in everywhere if pair[0].deployment == deployment]
        return cls(own, [pair for pair in own if pair[0].parent_model is not None])

    @property
    def running(self) -> str | None:
        """One that is not over."""
        going = (SearchStatus.QUEUED, SearchStatus.RUNNING)
        return next((request.id for request, state in self.searches if state.status in going), None)

    @property
    def answered_at(self) -> datetime | None:
        """When the last re-search began that did not fail: what was known before it has led to a search."""
        return max(
            (s.created_at for _, s in self.re_searches if s.status is not SearchStatus.FAILED), default=None
        )

    @property
    def spent(self) -> tuple[tuple[datetime, float], ...]:
        """Of each re-search when it began and its wall seconds; of one that is not over, what it may use."""
        return tuple((state.created_at, _charged(*pair)) for pair in self.re_searches for state in [pair[1]])

    @property
    def failures(self) -> Searches:
        """Re-searches that failed since one did not."""
        newest_first = sorted(self.re_searches, key=lambda pair: pair[1].created_at, reverse=True)
        return list(takewhile(lambda pair: pair[1].status is SearchStatus.FAILED, newest_first))

    def in_vain(self, champion: str | None) -> int:
        """Re-searches from a champion that came to a model, while it is champion all the same."""
        return sum(
            request.parent_model == champion and state.status is SearchStatus.FINISHED
            for request, state in self.re_searches
        )

    def answers(self, report: DriftReport) -> bool:
        """Whether a search was asked for because of a report, or after it, and did not fail."""
        return any(
            request.nonce == report.id or state.created_at >= report.created_at
            for request, state in self.re_searches
            if state.status is not SearchStatus.FAILED
        )


def _charged(request: SearchRequest, state: SearchState) -> float:
    granted = request.budget_s if state.budget_s is None else state.budget_s
    going = state.status in (SearchStatus.QUEUED, SearchStatus.RUNNING)
    return max(granted, state.spent_s) if going else state.spent_s
