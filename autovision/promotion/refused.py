"""Challengers that lack nothing but evidence: which there are, and when they are looked at again.

Pure functions of decisions. How they are judged then is in `autovision.promotion.later`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from autovision.records.deployments import Decision, DecisionKind

LEAST = 30
"""images that a challenger is looked at again on, at least"""
GROWTH = 1.3
"""times as many images that there have to be for another look"""
MOST_IMAGES = 2000
"""that it is judged by, the first to come; there is no further look"""
MOST_CANDIDATES = 6
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
    """that at the test split alone in front; empty: it was not written down"""
    closed: bool = False
    """whether it failed by something else the last time"""


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
    failed = {gate["name"]: gate for gate in numbers.get("gates", ()) if not gate["passed"]}
    champion = numbers.get("champion")
    if decision.accepted or decision.subject is None or not isinstance(champion, str) or not failed:
        return None
    name, gate = next(iter(failed.items()))
    before = numbers.get("later")
    closed = len(failed) > 1 or name not in _LACKS_EVIDENCE
    if before is None and not closed:
        asked = gate.get("numbers") or {}
        evidence = asked.get("evidence", {})
        levels = {part: [(evidence[part], level)] for part, level in asked.get("levels", {}).items()}
        before = {"look": 0, "labelled": 0, "levels": levels}
    if before is None or "levels" not in before:
        return None  # of an earlier rule: what its looks have spent is not known
    return Refused(
        decision.subject,
        champion,
        decision.created_at,
        numbers["metric"],
        before["look"],
        before["labelled"],
        {part: [(int(n), float(level)) for n, level in looks] for part, looks in before["levels"].items()},
        closed,
    )


def candidates(decided: Iterable[Said], champion: str, at: datetime) -> list[Refused]:
    """Those that may be looked at again, the newest first.

    What looks have spent stays spent: one that is compared anew, because somebody asks for it, goes on from there.

    Args:
        decided: what each decision said, the oldest first.
    """
    latest: dict[str | None, Refused | None] = {}
    spent: dict[str, Refused] = {}
    for model, case in decided:
        latest[model] = case
        if case is not None and case.champion == champion:
            before = spent.get(case.model)
            if before is not None and before.looks > case.looks:
                case = replace(case, looks=before.looks, labelled=before.labelled, levels=before.levels)
            latest[model] = spent[case.model] = case
    found = [
        each
        for each in latest.values()
        if each is not None
        and not each.closed
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
        """Each new label makes about one image; after a day one looks all the same.

        A capture may come after its label, and a word may settle what is to be said of other images, too.
        """
        return words - self.words < self.missing and abs(at - self.at) < timedelta(days=1)
