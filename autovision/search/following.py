"""Following a search that runs elsewhere, from what the store says of it."""

from __future__ import annotations

from datetime import UTC, datetime

from autovision.records.searches import SearchState, SearchStatus


def elapsed_s(state: SearchState, least_s: float = 0.0) -> float:
    """Seconds that a search has used by now.

    The state's seconds change at the end of an attempt only; while one runs, time goes on from its last change.

    Args:
        least_s: what was shown before, or what trials tell: time never goes back.
    """
    elapsed = max(least_s, state.spent_s)
    if state.status is SearchStatus.RUNNING:
        elapsed = max(elapsed, state.spent_s + (datetime.now(UTC) - state.updated_at).total_seconds())
    return elapsed
