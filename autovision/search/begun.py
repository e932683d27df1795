"""Trials that were begun and have not ended: what the driver knows of them, and what of it outlives the driver."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from pydantic import Field

from autovision.records.base import Record, now
from autovision.records.trials import CurvePoint, TrialResult, TrialState
from autovision.search.arms import Arm
from autovision.search.costing.cost import Expected
from autovision.search.schedulers import Report, kind_of
from autovision.space.config import TrialConfig
from autovision.store import keys, records
from autovision.store.protocol import Store
from autovision.trial.assignment import Assignment, Head, Reported
from autovision.trial.execution import value_of

LADDER = ("probe", "shallow", "deep")
"""rungs on which trials are; before them architectures are measured, and after them the winner is finished"""
_DEEP = 3
"""unfrozen stages from which on a trial is on the deep rung of the ladder"""


class BegunTrial(Record):
    """What is known of one trial."""

    trial: str
    number: int
    config: TrialConfig
    point: dict[str, Any]
    origin: str
    curve: tuple[CurvePoint, ...] = ()
    objectives: tuple[float, ...] = ()
    weights_key: str | None = None
    costs: dict[str, float] = Field(default_factory=dict)
    """in each of the search's objectives beside the metric"""


class Begun(Record):
    """An assignment that was given to a worker and has not ended; the search's next attempt takes it up."""

    assignment: Assignment
    members: tuple[BegunTrial, ...]
    paused: bool = False
    seconds: float = 0.0
    feature_s: float = 0.0
    notes: tuple[str, ...] = ()


@dataclass
class Member:
    """A trial while it runs, or is paused."""

    trial: str
    number: int
    config: TrialConfig
    point: dict[str, Any]
    origin: str
    proposal: int
    """the sampler's number"""
    told: bool = False
    """the sampler was told of it already, when it was paused"""
    costs: dict[str, float] = field(default_factory=dict)
    """in each of the search's objectives beside the metric"""
    curve: list[CurvePoint] = field(default_factory=list)
    objectives: list[float] = field(default_factory=list)
    last: dict[str, Any] = field(default_factory=dict)
    """what it reported, the latest of each"""

    def take(self, point: CurvePoint, objective: float) -> bool:
        """Keep a rung; False if it is known: a trial that was begun again may pass one once more."""
        if any(known.rung == point.rung for known in self.curve):
            return False
        self.curve.append(point)
        self.objectives.append(objective)
        return True

    @property
    def steps(self) -> list[tuple[int, float]]:
        return [(point.rung, value) for point, value in zip(self.curve, self.objectives, strict=True)]

    @property
    def best(self) -> float | None:
        return max(self.objectives, default=None)


@dataclass
class Running:
    """What a worker was told to do: one trial, or heads that are trained together."""

    assignment: Assignment
    members: list[Member]
    arm: Arm | None
    expected: Expected | None
    """what there was to do when it began; None: it was begun by an earlier attempt"""
    paused: bool = False
    stopped: bool = False
    """the scheduler stopped it"""

    @property
    def lead(self) -> Member:
        return self.members[0]

    @property
    def reported(self) -> bool:
        return any(member.curve for member in self.members)

    @property
    def cost_s(self) -> float:
        """Of training so far, without features."""
        last = self.lead.last
        return max(0.0, float(last.get("seconds", 0.0)) - float(last.get("feature_s", 0.0)))

    @property
    def remaining_s(self) -> float:
        """Of training until its last epoch, at the pace so far."""
        if not self.lead.curve:
            return 0.0
        epoch = self.lead.curve[-1].epoch
        return self.cost_s / epoch * max(0, self.lead.config.epochs - epoch)

    def curve_of_each(self, result: dict[str, Any]) -> list[CurvePoint]:
        """The rungs of a trial: of heads that are trained together one, with a head's share of their training."""
        if not self.assignment.heads:
            return self.lead.curve
        last = [member.curve[-1] for member in self.members if member.curve]
        longest = max(last, key=lambda point: point.epoch)
        share = (result["seconds"] - result["feature_s"]) / len(self.members)
        return [longest.with_(seconds=result["feature_s"] + share)]

    def report(self, *, done: bool) -> Report:
        """For the scheduler."""
        lead = self.lead
        return Report(
            lead.trial, kind_of(lead.config), lead.curve[-1].rung, self.cost_s, lead.objectives[-1], done
        )

    def take_up(self, **changes: Any) -> Assignment:
        """The assignment for a worker that goes on from the trial's checkpoint, if there is one."""
        last = self.lead.last
        before = Reported(
            losses=self.assignment.before.losses,
            objective=self.lead.best,
            weights_key=last.get("weights_key"),
            seconds=last.get("seconds", 0.0),
            feature_s=last.get("feature_s", 0.0),
        )
        self.assignment = self.assignment.with_(before=before, **changes)
        return self.assignment

    def record(self) -> Begun:
        last = self.lead.last
        return Begun(
            assignment=self.assignment,
            members=tuple(
                BegunTrial(
                    trial=member.trial,
                    number=member.number,
                    config=member.config,
                    point=member.point,
                    origin=member.origin,
                    curve=tuple(member.curve),
                    objectives=tuple(member.objectives),
                    weights_key=member.last.get("weights_key"),
                    costs=member.costs,
                )
                for member in self.members
            ),
            paused=self.paused,
            seconds=last.get("seconds", 0.0),
            feature_s=last.get("feature_s", 0.0),
            notes=tuple(last.get("notes", ())),
        )

    @classmethod
    def of(cls, begun: Begun, arm: Arm | None) -> Running:
        """As it was when it was recorded; nobody has told the sampler of it yet."""
        members = []
        for each in begun.members:
            last: dict[str, Any] = {"outcome": "running"} if each.curve else {}
            if each.curve:
                last |= {
                    "seconds": begun.seconds,
                    "feature_s": begun.feature_s,
                    "notes": list(begun.notes),
                    "weights_key": each.weights_key,
                }
            members.append(
                Member(
                    each.trial,
                    each.number,
                    each.config,
                    each.point,
                    each.origin,
                    proposal=-1,
                    costs=each.costs,
                    curve=list(each.curve),
                    objectives=list(each.objectives),
                    last=last,
                )
            )
        return cls(begun.assignment, members, arm, None, paused=begun.paused)

    def results(self, error: str | None = None) -> list[TrialResult]:
        """The line of the ledger of each of its trials, as they are now."""
        return [self._result(member, error) for member in self.members]

    def _result(self, member: Member, error: str | None) -> TrialResult:
        last = member.last
        outcome = "failed" if error else last.get("outcome", "stopped")
        state = {
            "complete": TrialState.COMPLETE,
            "failed": TrialState.FAILED,
            "stopped": TrialState.STOPPED,
            # It was still going when it ended: cut by the scheduler, or with everything else.
            "running": TrialState.PRUNED if self.stopped or self.paused else TrialState.STOPPED,
        }[outcome]
        task = self.assignment
        rungs = range(len(member.objectives))
        # Of heads that are trained together, what is stored is what they ended with.
        best = max(
            rungs, key=(lambda rung: rung) if task.heads else member.objectives.__getitem__, default=None
        )
        return TrialResult(
            search=task.search,
            trial=member.trial,
            number=member.number,
            state=state,
            config=member.config.model_dump(mode="json"),
            parameters=member.point,
            origin=member.origin,
            ladder=ladder_of(member.config),
            batch=task.trial if task.heads else None,
            curve=tuple(member.curve),
            value=None if best is None else member.objectives[best],
            metrics={} if best is None else member.curve[best].metrics,
            objectives=member.costs,
            weights_key=last.get("weights_key"),
            seconds=last.get("seconds", 0.0),
            feature_s=last.get("feature_s", 0.0),
            error=error or last.get("error"),
            notes=tuple(last.get("notes", ())),
            seed=task.seed,
            created_at=now(),
        )


def ladder_of(config: TrialConfig) -> str:
    """The rung of the ladder that a trial is on: `probe` (a head), `shallow` or `deep` (stages unfrozen)."""
    probe, shallow, deep = LADDER
    if not config.needs_maps:
        return probe
    return deep if config.unfreeze >= _DEEP or config.views == 0 else shallow


def told_by(running: Running, result: dict[str, Any]) -> list[tuple[Member, dict[str, Any]]]:
    """What a worker's report says of each trial: as if each had been trained alone, with its share of the seconds."""
    if not running.assignment.heads:
        return [(member, result) for member in running.members]
    share = 1.0 / len(running.members)
    common = result | {"seconds": result["seconds"] * share, "feature_s": result["feature_s"] * share}
    if "heads" not in result:
        return [(member, common) for member in running.members]
    del common["heads"]
    each = json.loads(result["heads"])
    return [(member, common | told) for member, told in zip(running.members, each, strict=True)]


def heads_of(members: list[Member], *, batch: bool = False) -> tuple[Head, ...]:
    """As a worker is told of trials that it trains together; none if there is only one.

    Args:
        batch: they were trained together, and what is left of them may be one.
    """
    if len(members) == 1 and not batch:
        return ()
    return tuple(Head(trial=m.trial, number=m.number, config=m.config) for m in members)


def reports_of(result: TrialResult, metric: str, *, ended: bool = True) -> list[tuple[float, int, Report]]:
    """What a scheduler was told of a trial, each with when, in seconds of the search, and with the trial's number."""
    kind = kind_of(TrialConfig.model_validate(result.config))
    done = ended and result.state in (TrialState.COMPLETE, TrialState.STOPPED)
    return [
        (
            point.search_s,
            result.number,
            Report(
                result.trial,
                kind,
                point.rung,
                max(0.0, point.seconds - result.feature_s),
                value_of(point.metrics, metric),
                done and point is result.curve[-1],
            ),
        )
        for point in result.curve
    ]


def settle(store: Store, search: str) -> list[TrialResult]:
    """Write what a stopped search had begun into its ledger as it is, for nobody to go on with; what was written.

    Checkpoints go with it.
    """
    ended = set(store.list(keys.trials(search)))
    written = []
    for begun in records.read_all(store, keys.begun(search), Begun):
        for result in Running.of(begun, None).results():
            if result.curve and keys.trial(search, result.trial) not in ended:
                written.append(records.create_or_read(store, keys.trial(search, result.trial), result)[0])
        task = begun.assignment
        store.delete(keys.begun_trial(search, task.trial))
        if not task.heads:
            store.delete(keys.checkpoint(search, task.config.digest, task.seed))
    return written
