"""Trials: lines of the ledger of a search."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from pydantic import AwareDatetime

from autovision.records.base import Record


class TrialState(StrEnum):
    """How a trial ended. All are terminal; a trial that is lost leaves no record and is run again."""

    COMPLETE = "complete"
    """ran to its last rung"""
    PRUNED = "pruned"
    """stopped by the scheduler for being worse than its peers"""
    STOPPED = "stopped"
    """cut short by the end of the budget; its value is that of its last rung"""
    FAILED = "failed"
    """raised an error, or its loss was not finite"""


class CurvePoint(Record):
    """What a trial reported at the end of one rung."""

    rung: int
    epoch: int
    seconds: float
    """since the trial began"""
    search_s: float
    """since the search began (spent seconds, over all attempts)"""
    train_loss: float
    metrics: dict[str, float]
    """on validation"""
    judged_epoch: int | None = None
    """after which the weights were as judged, where that is an earlier epoch: early stopping went back to it"""


class TrialResult(Record):
    """The immutable result of one trial: a line of the ledger."""

    search: str
    trial: str
    number: int
    state: TrialState
    config: dict[str, Any]
    """the resolved TrialConfig"""
    parameters: dict[str, Any]
    """the point of the search space that it came from"""
    origin: str
    """`default`, `sampled`, `ledger` (an earlier search's winner), `similar` (that of a data set which looks alike),
    `champion`, or `probe` (as the best head, with stages unfrozen)"""
    ladder: str = ""
    """which rung of the ladder it is on: `probe`, a head alone; `shallow` or `deep`, by the stages it unfreezes"""
    batch: str | None = None
    """the first of the heads that it was trained together with; None: alone"""
    curve: tuple[CurvePoint, ...] = ()
    value: float | None = None
    """the search's metric on validation at the best rung; None for a trial that never reached one"""
    metrics: dict[str, float] = {}
    objectives: dict[str, float] = {}
    """of each of the search's objectives beside the metric: what the model costs"""
    weights_key: str | None = None
    """trained tensors (head and unfrozen stages), safetensors; None when nothing was trained"""
    seconds: float = 0.0
    """of work; of a head in a batch, its share"""
    feature_s: float = 0.0
    """of `seconds`: waiting for or computing frozen-prefix features"""
    error: str | None = None
    notes: tuple[str, ...] = ()
    seed: int = 0
    created_at: AwareDatetime
