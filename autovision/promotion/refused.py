"""Challengers that lack nothing but evidence: which there are, and when they are looked at again.

Pure functions of decisions. How they are judged then is in `autovision.promotion.later`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from autovision.records.deployments import Decision, DecisionKind

LEAST = 30
"""images that a challenger is looked at again on, at least"""
GROWTH = 1.3
"""times as many images that there have to be for another look"""
MOST_IMAGES = 2000
"""that it is judged by, the first to come; there is no further look"""
MOST_CANDIDATES = 3
"""refused challengers that are looked at again, the newest"""
PATIENCE = timedelta(days=60)
"""after its last look, in which there have to be `GROWTH` times as many images of a candidate"""
GATE = "better_since"
Look = tuple[int, float]
"""the evidence that there was at a look, and the level that was asked for"""
Levels = Mapping[str, Sequence[Look]]
"""part of the images -> the looks at it, the oldest first"""
_LACKS_EVIDENCE = ("better_somewhere", GATE)


@dataclass(frozen=True)
class Refused:
    """A challenger that was not shown to be better, and failed by nothing else."""

    model: str
    champion: str
    """that it was compared with"""
    at: datetime
    metric: str
    looks: int = 0
    """how often it was looked at again"""
    labelled: int = 0
    """images that there were the last time"""
    levels: Levels = field(default_factory=dict)
    """that at the test split alone in front; empty: there was no other"""


Said = tuple[str | None, Refused | None]
"""the model that a decision is about, and what is left open of it; two times None of a decision on something else"""


def said(decision: Decision) -> Said:
    """What a decision says of a challenger."""
    if decision.kind is not DecisionKind.PROMOTE:
        return None, None
    return decision.subject, _refused(decision)


def _refused(decision: Decision) -> Refused | None:
    """None: it is the last word."""
    numbers = decision.numbers
    failed = [gate["name"] for gate in numbers.get("gates", ()) if not gate["passed"]]
    champion = numbers.get("champion")
    if (
        decision.accepted
        or decision.subject is None
        or not isinstance(champion, str)
        or len(failed) != 1
        or failed[0] not in _LACKS_EVIDENCE
    ):
        return None
    before = numbers.get("later") or {"look": 0, "labelled": 0, "levels": {}}
    if "levels" not in before:
        return None  # what an earlier rule has spent is not known
    return Refused(
        decision.subject,
        champion,
        decision.created_at,
        numbers["metric"],
        before["look"],
        before["labelled"],
        {part: [(int(n), float(level)) for n, level in looks] for part, looks in before["levels"].items()},
    )


def candidates(decided: Iterable[Said], champion: str, at: datetime) -> list[Refused]:
    """Those that may be looked at again, the newest first.

    Args:
        decided: what each decision said, the oldest first.
    """
    latest = dict(decided)
    found = [
        each
        for each in latest.values()
        if each is not None
        and each.champion == champion
        and at - each.at <= PATIENCE
        and each.labelled < MOST_IMAGES
    ]
    return found[::-1][:MOST_CANDIDATES]


def wanted(case: Refused) -> int:
    """How many labelled images there have to be for another look."""
    return max(LEAST, math.ceil(GROWTH * case.labelled))


def due(case: Refused, labelled: int) -> bool:
    """Whether there are images enough for another look."""
    return labelled >= wanted(case)


@dataclass(frozen=True)
class Short:
    """There were too few images for another look: until more is said, it need not be counted again what they are."""

    words: int
    """labels of any kind that there were"""
    missing: int
    """images"""
    at: datetime

    def still(self, words: int, at: datetime) -> bool:
        """Each new label makes one image at most; a day later one looks all the same: a capture may come after it."""
        return words - self.words < self.missing and at - self.at < timedelta(days=1)
