"""What trials are told to do and what they tell: plain data, which costs no process much to load."""

from __future__ import annotations

import time
from typing import Any

from autovision.records.base import Record
from autovision.records.searches import Costs
from autovision.space.config import TrialConfig


class Reported(Record):
    """What the workers of a trial had reported when some were lost: those that go on build on it."""

    losses: int = 0
    """how often workers were lost"""
    objective: float | None = None
    """of the best rung; None: there was none yet"""
    weights_key: str | None = None
    """what was trained at that rung"""
    seconds: float = 0.0
    """of their work"""
    feature_s: float = 0.0
    """of that, on features"""


class Head(Record):
    """One of several heads on the same pooled features that are trained together; each is a trial of its own."""

    trial: str
    number: int
    config: TrialConfig


class Assignment(Record):
    """What a worker is told to do: plain data, so that it can be sent to any node."""

    store: str
    search: str
    trial: str
    number: int
    dataset: str
    """`name@version`"""
    config: TrialConfig
    metric: str
    seed: int
    deadline: float
    """seconds since the epoch"""
    must_report: bool
    """compute features past the deadline, too: without this trial the search might end with nothing"""
    search_started: float
    """when the search would have begun, had it never been interrupted; seconds since the epoch"""
    initial_model: str | None
    champion: str | None = None
    """the model that the search's is to succeed"""
    threads: int
    """CPUs of each worker"""
    workers: int = 1
    """that train the trial together"""
    gpu: bool = False
    """whether each of several workers has a GPU of its own"""
    gpu_share: float = 1.0
    """of the memory of its GPU, if it has one: other trials have the rest"""
    parts: int = 1
    """in how many parts each batch is computed at least"""
    costs: Costs | None = None
    """of answers, for the metric `neg_mean_cost`"""
    before: Reported = Reported()
    """what a worker before this one had reported"""
    heads: tuple[Head, ...] = ()
    """all heads that are trained together; the first is this trial's. Empty: this trial alone"""


def without_value(outcome: str, error: str, started: float, feature_s: float = 0.0) -> dict[str, Any]:
    """What is reported of an assignment that ends without another rung."""
    return {
        "outcome": outcome,
        "error": error,
        "objective": float("nan"),  # Tune insists on the metric in every report
        "done": True,
        "seconds": time.time() - started,
        "feature_s": feature_s,
    }
