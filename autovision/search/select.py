"""Reading a ledger: which trial is the best, and how many ended how."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from autovision.records import TrialResult, TrialState


def best_trial(ledger: Sequence[TrialResult]) -> TrialResult | None:
    """The trial with the highest value that left weights; the earlier one of two equals."""
    usable = [r for r in ledger if r.value is not None and r.weights_key is not None]
    return max(usable, key=lambda r: (r.value, -r.number), default=None)


def counts(ledger: Sequence[TrialResult], metric: str) -> dict[str, Any]:
    """How many trials ended how, and the best: the fields of a `ProgressEvent`."""
    states = [result.state for result in ledger]
    valued = [result.state for result in ledger if result.value is not None]
    best = best_trial(ledger)
    return {
        "complete": valued.count(TrialState.COMPLETE) + valued.count(TrialState.STOPPED),
        "pruned": len(states)
        - states.count(TrialState.FAILED)
        - valued.count(TrialState.COMPLETE)
        - valued.count(TrialState.STOPPED),
        "failed": states.count(TrialState.FAILED),
        "best_value": best.metrics[metric] if best else None,
        "best_config": best.config if best else {},
    }
