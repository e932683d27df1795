"""What a year came to: accuracy, searches, spend, alarms, recovery, and what must never happen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise, takewhile

import numpy as np

from autovision.dataset import catalog, manifest
from autovision.model.version import read_version
from autovision.records.datasets import Split
from autovision.records.deployments import DecisionKind, DriftReport
from autovision.registry import deployments
from autovision.retraining.schedule import slots
from autovision.store import keys, records
from autovision.testing.year.loop import DEPLOYMENT, Year
from autovision.testing.year.models import PENALTIES, Answering
from autovision.testing.year.world import KINDS, START, World, at

SAME = 0.05
"""total variation of the kinds' shares up to which a window is like the images that it is compared with"""
NEAR = 0.03
"""below the best, in accuracy: recovered"""
_ANEW = 10
"""days after which the best model is fitted anew"""


@dataclass(frozen=True)
class Slots:
    """What became of the slots of a schedule."""

    all: int
    once: int
    more: int
    """dealt with more than once"""
    overtaken: int
    """never dealt with, since a later one had come before anything could be decided"""
    unexplained: int
    """of `overtaken`, those outside of any outage"""


@dataclass(frozen=True)
class Tally:
    """Figures of a year under a policy."""

    accuracy: tuple[float, ...]
    """of the model that serves, day by day, by true labels of images that nobody has sent"""
    best: tuple[float, ...]
    """the same of a regression on all images that may be sent, with true labels, weighted as the traffic is"""
    searches: int
    """re-searches, those that failed among them"""
    failed: int
    promoted: int
    spent_s: float
    """of re-searches"""
    windows: int
    alarms: int
    still: int
    """windows like what they are compared with; see `SAME`"""
    false_alarms: int
    """alarms in these"""
    recovery_days: int | None
    """from the sudden shift until accuracy is near the best; None: not within the year"""
    days_below: int
    """on which accuracy is not near the best"""
    most_at_once: int
    overlaps: int
    """searches that began before another one had ended"""
    slots: Slots | None
    """None: there is no schedule"""
    labels: int
    """words of people"""
    lost: int
    """requests whose capture was lost"""

    @property
    def mean(self) -> float:
        return float(np.mean(self.accuracy))


def tally(year: Year) -> Tally:
    """The figures of a year that has been lived."""
    world, plan = year.world, year.world.plan
    accuracy = by_day(world, [year.lab.answering(model) for model in year.served])
    best = by_day(world, best_of(world))
    behind = [b - a > NEAR for a, b in zip(accuracy, best, strict=True)]
    recovered = [day for day in range(plan.sudden, plan.days) if not behind[day]]
    again = sorted(year.lab.runs, key=lambda run: run.began_at)[1:]
    reports = records.read_all(year.store, keys.reports(DEPLOYMENT), DriftReport)
    still = [report for report in reports if _distance(year, report) <= SAME]
    return Tally(
        accuracy=tuple(accuracy),
        best=tuple(best),
        searches=len(again),
        failed=sum(run.model is None for run in again),
        promoted=sum(a != b for a, b in pairwise(year.served)),
        spent_s=sum(run.spent_s for run in again),
        windows=len(reports),
        alarms=sum(report.alarm for report in reports),
        still=len(still),
        false_alarms=sum(report.alarm for report in still),
        recovery_days=recovered[0] - plan.sudden if recovered else None,
        days_below=sum(behind),
        most_at_once=year.most_at_once,
        overlaps=sum(later.began_at < run.ended_at for run, later in pairwise(again)),
        slots=_slots(year),
        labels=sum(1 for _ in year.store.list(keys.labels(DEPLOYMENT))),
        lost=year.lost,
    )


def by_day(world: World, models: list[Answering]) -> list[float]:
    """Accuracy of the model of each day, on unsent images mixed as the traffic of the day is."""
    known: dict[int, dict[str, float]] = {}
    for model in models:
        if id(model) not in known:
            known[id(model)] = {
                name: model.accuracy(images.embeddings, images.truth)
                for name, images in world.held_out.items()
            }
    return [
        sum(share * known[id(model)][name] for name, share in world.plan.shares(day).items())
        for day, model in enumerate(models)
    ]


def best_of(world: World) -> list[Answering]:
    """Of each day: a regression on all images that may be sent, with true labels, weighted by the traffic."""
    names = [KINDS[0], *KINDS]
    parts = [world.begins, *(world.sent[name] for name in KINDS)]
    embeddings = np.concatenate([each.embeddings for each in parts])
    truth = np.concatenate([each.truth for each in parts])
    found: list[Answering] = []
    for day in range(world.plan.days):
        if day % _ANEW == 0 or day == world.plan.sudden:
            shares = world.plan.shares(day)
            counts = {
                name: sum(len(p.truth) for n, p in zip(names, parts, strict=True) if n == name)
                for name in KINDS
            }
            weights = np.concatenate(
                [np.full(len(p.truth), shares[n] / counts[n]) for n, p in zip(names, parts, strict=True)]
            )
            found.append(Answering.fit(embeddings, truth, PENALTIES[1], weights * len(weights)))
        else:
            found.append(found[-1])
    return found


def _distance(year: Year, report: DriftReport) -> float:
    """Total variation between the kinds that a window is drawn from and those of the images it is compared with."""
    version = catalog.get(year.store, read_version(year.store, report.model).lineage.dataset)
    rows = [row for row in manifest.read(year.store, version) if row.split != Split.TRAIN]
    normal = _shares(Counter(year.world.by_digest[row.image].kind for row in rows))
    first, last = (
        (moment - START) // timedelta(days=1) for moment in (report.window_start, report.window_end)
    )
    drawn = [year.world.plan.shares(day) for day in range(first, last + 1)]
    return 0.5 * sum(abs(float(np.mean([day[name] for day in drawn])) - normal[name]) for name in KINDS)


def _shares(counts: Mapping[str, int]) -> dict[str, float]:
    n = sum(counts.values())
    return {name: counts.get(name, 0) / n for name in KINDS}


def _slots(year: Year) -> Slots | None:
    policy, plan = year.policy, year.world.plan
    if policy.schedule is None:
        return None
    end = at(plan.days, 0)
    coming = slots(policy.schedule, policy.time_zone, START)
    every = list(takewhile(lambda slot: slot < end, coming))
    dealt = Counter(
        decision.numbers["slot"]
        for decision in deployments.decisions(year.store, DEPLOYMENT)
        if decision.kind is DecisionKind.RETRAIN and decision.numbers.get("slot")
    )
    missed = [slot for slot in every if not dealt[slot.isoformat()]]
    outages = (plan.store_down, plan.ray_down, plan.controller_down)
    unexplained = [
        slot for slot in missed if not any((slot - START) // timedelta(days=1) in days for days in outages)
    ]
    return Slots(
        all=len(every),
        once=sum(dealt[slot.isoformat()] == 1 for slot in every),
        more=sum(count > 1 for count in dealt.values()),
        overtaken=len(missed),
        unexplained=len(unexplained),
    )
