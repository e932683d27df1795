"""All that is known when a deployment's retraining is evaluated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from autovision.records.deployments import DriftReport
from autovision.records.retraining import Ask
from autovision.retraining.accuracy import Share

_SHOWN = 10
"""classes that are named in words"""


@dataclass(frozen=True)
class Snapshot:
    """All that the policy looks at."""

    now: datetime
    report: DriftReport | None = None
    """the latest one of the current model"""
    answered: bool = False
    """a search was started because of `report`, or after it, and did not fail"""
    labels: int = 0
    """usable labels of images that no search has seen, those of failed searches aside; images that are nearly the same
    and labelled the same are one"""
    alike: int = 0
    """labels that are none of `labels`, since another image that is nearly the same is labelled so"""
    images: int = 0
    """of the data set version that the last search was asked for that did not fail"""
    labels_per_class: Mapping[str, int] = field(default_factory=dict)
    """of `labels`; with several labels an image one counts for each of its classes"""
    classes: tuple[str, ...] = ()
    """of the data set"""
    last_search_at: datetime | None = None
    """when the deployment's last re-search began that did not fail"""
    running_search: str | None = None
    """the deployment's search that is queued or running; None: none"""
    spent: tuple[tuple[datetime, float], ...] = ()
    """of each re-search when it began, and the wall seconds that it used, or may use while it is not over"""
    failures: int = 0
    """re-searches in a row that failed, up to the latest"""
    failed_at: datetime | None = None
    """when the last of them did"""
    in_vain: int = 0
    """re-searches of the current champion whose models did not take its place"""
    measured: Share | None = None
    """what labels say of the current model's answers since the last re-search that did not fail; None: nobody asks"""
    held_out: Share | None = None
    """the current model's accuracy on its test images"""
    ask: Ask | None = None
    """a person's word that no search has answered"""
    slots_since: datetime | None = None
    """slots of the schedule up to then are dealt with; None: it begins to count now"""


def labels_told(snapshot: Snapshot) -> str:
    """How many new labels there are, in words; the numbers of a decision have all classes."""
    each = listed([f"{name} {count}" for name, count in sorted(snapshot.labels_per_class.items())])
    more = f", beside {snapshot.alike} of images that are nearly the same," if snapshot.alike else ""
    return f"{snapshot.labels} new labels" + (f" ({each})" if each else "") + more


def listed(parts: Sequence[str]) -> str:
    """With commas between; of very many the first."""
    more = [f"and {len(parts) - _SHOWN} more"] if len(parts) > _SHOWN else []
    return ", ".join([*parts[:_SHOWN], *more])
