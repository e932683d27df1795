"""What a search knows and decides while it runs: which trial next, which goes on, what the ledger says.

Plain Python without Ray, so that it can be driven by Tune or by a simulation.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from autovision.records import CurvePoint, SearchRequest, TrialResult, TrialState, now
from autovision.search import select
from autovision.search.arms import Arm, ArmRecord, arm_of, arms_of, choose
from autovision.search.cost import CostModel, config_of
from autovision.search.limits import values_of
from autovision.search.objectives import Trade, vector
from autovision.search.progress import ProgressEvent
from autovision.search.pruner import AsyncHalving, kind_of
from autovision.search.sampler import Proposal, Sampler
from autovision.search.warm import Start
from autovision.space import Space
from autovision.space.config import TrialConfig
from autovision.store import keys, records
from autovision.store.protocol import Store
from autovision.trial.assignment import Assignment, Reported
from autovision.trial.execution import value_of

_DRAWS = 20
"""so many draws in a row that were all tried before, or break a limit, mean that there is nothing new to try"""
_START_SHARE = 0.25
_START_EXCESS = 1.5
"""a starting point is passed over if it is predicted to take more than this share of the seconds left, and than
so many times the cheapest arm"""


@dataclass
class Running:
    """A trial that has been begun."""

    assignment: Assignment
    point: dict[str, Any]
    origin: str
    proposal: int
    arm: Arm | None
    expected_gflops: float
    curve: list[CurvePoint] = field(default_factory=list)
    objectives: list[float] = field(default_factory=list)
    last: dict[str, Any] = field(default_factory=dict)
    pruned: bool = False


@dataclass
class Driver:
    """The state of one attempt at a search."""

    store: Store
    request: SearchRequest
    space: Space
    cost: CostModel
    starts: list[Start]
    ledger: list[TrialResult]
    attempt: int
    deadline: float
    """seconds since the epoch, after which no trial works"""
    search_started: float
    threads: int
    """CPUs of each worker"""
    gpu: bool = False
    """whether each of a trial's several workers has a GPU"""
    left_out: frozenset[str] = frozenset()
    """backbones that cannot be used here"""
    fault: Callable[[TrialConfig], str | None] = lambda config: None
    """why a configuration breaks the request's limits; None: it does not"""
    costs: Callable[[TrialConfig], dict[str, float]] = lambda config: {}
    """what a model of a configuration costs, in each of the request's objectives"""
    clock: Callable[[], float] = time.time
    """seconds since the epoch; a simulation turns its own"""
    emit: Callable[[ProgressEvent], None] = lambda event: None

    def __post_init__(self) -> None:
        self._sampler = Sampler(
            self.space, self.request.seed, self.request.sampler, others=len(self.request.objectives)
        )
        self._pruner = AsyncHalving()
        self._trade = Trade(self.request.objectives, self.request.seed)
        self._arms = {
            arm: ArmRecord()
            for arm in arms_of(self.space)
            if dict(arm).get("backbone") not in self.left_out and self._admits(arm)
        }
        self._exhausted: set[Arm] = set()
        self.starts = [start for start in self.starts if self._usable(self.space.config(start.point))]
        self.running: dict[str, Running] = {}
        self._again: list[str] = []
        self._next_number = 1 + max((result.number for result in self.ledger), default=-1)
        self._tried = {_digest(result) for result in self.ledger}
        self._replay()

    def _replay(self) -> None:
        metric = self.request.metric
        steps = {r.trial: [(p.rung, value_of(p.metrics, metric)) for p in r.curve] for r in self.ledger}
        names = self.request.objectives
        self._sampler.replay(
            (result, steps[result.trial], vector(names, result.objectives)) for result in self.ledger
        )
        for result in self.ledger:
            kind = kind_of(TrialConfig.model_validate(result.config))
            for rung, value in steps[result.trial]:
                self._pruner.goes_on(kind, rung, value)
                self._trade.at_rung(kind, rung, value, result.objectives)
            if (arm := arm_of(result.parameters, list(self._arms))) is not None:
                _learn(self._arms[arm], result)
                self._trade.learn(arm, result)

    # ------------------------------------------------------------------------------------------ deciding

    def next(self) -> Assignment | None:
        """The next trial to begin; None if nothing more fits into the budget."""
        remaining = self.deadline - self.clock()
        if remaining <= 0.5:
            return None
        if self._again:
            return self.running[self._again.pop()].assignment
        if self.request.max_trials and self.begun >= self.request.max_trials:
            return None
        drawn = self._draw(remaining)
        if drawn is None:
            return None
        proposal, arm, origin, initial = drawn
        config = self.space.config(proposal.point)
        self._tried.add(config.digest)
        number = self._next_number
        self._next_number += 1
        trial = f"{self.attempt:02d}-{number:05d}-{config.digest[:6]}"
        assignment = Assignment(
            store=self.store.uri,
            search=self.request.id,
            trial=trial,
            number=number,
            dataset=f"{self.request.dataset}@{self.request.dataset_version}",
            config=config,
            metric=self.request.metric,
            seed=self.request.seed,
            deadline=self.deadline,
            must_report=not any(result.value is not None for result in self.ledger)
            and not self._have_value(),
            search_started=self.search_started,
            initial_model=initial,
            threads=self.threads,
            workers=self.request.workers_per_trial,
            gpu=self.gpu,
        )
        gflops = self.cost.feature_gflops(config)
        self.running[trial] = Running(assignment, proposal.point, origin, proposal.number, arm, gflops)
        if arm is not None:
            self._arms[arm].running += 1
        self._report()
        return assignment

    def _draw(self, remaining: float) -> tuple[Proposal, Arm | None, str, str | None] | None:
        """A proposal that was never tried; None if nothing fits any more, or nothing new is left."""
        while True:
            for _ in range(_DRAWS):
                proposal, arm, origin, initial = self._propose(remaining)
                if proposal is None:
                    return None
                config = self.space.config(proposal.point)
                if self._usable(config) and config.digest not in self._tried:
                    return proposal, arm, origin, initial
                self._sampler.refuse(proposal.number)
            if arm is None:
                return None
            self._exhausted.add(arm)

    def _usable(self, config: TrialConfig) -> bool:
        return config.backbone not in self.left_out and self.fault(config) is None

    def _admits(self, arm: Arm) -> bool:
        """Whether some depth of an arm meets the limits: where nothing is unfrozen, depth is the sampler's choice."""
        config = config_of(arm, self.space.config(self.space.default()).model_dump())
        depths = [config.drop_stages]
        if "drop_stages" not in dict(arm):
            depths += values_of(self.space.parameters.get("drop_stages"), config.drop_stages)
        return any(self.fault(config.with_(drop_stages=depth)) is None for depth in depths)

    def _have_value(self) -> bool:
        return any(running.objectives for running in self.running.values())

    @property
    def pending_first(self) -> bool:
        """Whether the budget may not end yet, because a trial is about to give the first value of all."""
        first = any(running.assignment.must_report for running in self.running.values())
        return first and not self._have_value() and all(result.value is None for result in self.ledger)

    @property
    def begun(self) -> int:
        return len(self.ledger) + len(self.running)

    def _propose(self, remaining: float) -> tuple[Proposal | None, Arm | None, str, str | None]:
        arms = list(self._arms)
        start = self._affordable_start(remaining)
        if start is not None:
            proposal = self._sampler.ask(start.point)
            return proposal, arm_of(proposal.point, arms), start.origin, start.initial_model
        if not arms:
            return self._sampler.ask(), None, "sampled", None
        arm = choose(self._trade.records(self._arms, self._next_number), self._predicted_s, remaining)
        if arm is None or arm in self._exhausted:
            return None, None, "", None
        proposal = self._sampler.ask(dict(arm))
        return proposal, arm, "sampled", None

    def _affordable_start(self, remaining: float) -> Start | None:
        """The next starting point, unless it would eat much of the budget where something else would not."""
        cheapest = min(map(self._predicted_s, self._arms), default=float("inf")) if self.starts else 0.0
        limit = max(_START_SHARE * remaining, _START_EXCESS * cheapest)
        while self.starts:
            start = self.starts.pop(0)
            if self.cost.predicted_s(self.space.config(start.point)) <= limit:
                return start
        return None

    def _predicted_s(self, arm: Arm) -> float:
        if arm in self._exhausted:
            return math.inf
        record = self._arms[arm]
        config = config_of(arm, self.space.config(self.space.default()).model_dump())
        if record.seconds and not record.running:
            return sorted(record.seconds)[len(record.seconds) // 2]
        return self.cost.predicted_s(config)

    def goes_on(self, trial: str, result: dict[str, Any]) -> bool:
        """Take in what a trial reported at a rung; whether it may go on."""
        running = self.running.get(trial)
        if running is None:
            return False
        running.last |= result  # what trained before a failure is stored and counts
        goes_on = True
        point = CurvePoint.model_validate_json(result["point"]) if "point" in result else None
        # A trial that was begun again may pass a rung once more.
        if point is not None and all(known.rung != point.rung for known in running.curve):
            running.curve.append(point)
            running.objectives.append(result["objective"])
            if len(running.curve) == 1:
                self.cost.observe(running.expected_gflops, result["feature_s"])
            # Whoever ends by itself is one to compare with, too.
            kind, rung = kind_of(running.assignment.config), running.curve[-1].rung
            goes_on = self._pruner.goes_on(kind, rung, running.objectives[-1])
            costs = self.costs(running.assignment.config)
            goes_on |= self._trade.at_rung(kind, rung, running.objectives[-1], costs)
            self._report()
        running.pruned = not goes_on and not result.get("done")
        return not running.pruned

    # ------------------------------------------------------------------------------------------ recording

    def lost(self, trial: str, reason: str) -> None:
        """The worker of a trial is gone. The trial is begun once more, and ends as failed the next time.

        Workers are lost for lack of memory most of all: the kernel and Ray kill who takes too much. The second one
        therefore computes each batch in two parts. It goes on from the trial's checkpoint, if there is one.
        """
        running = self.running.get(trial)
        if running is None or running.assignment.before.losses or running.assignment.workers > 1:
            self.ended(trial, error=reason)
            return
        best = Reported(
            losses=1,
            objective=max(running.objectives, default=None),
            weights_key=running.last.get("weights_key"),
        )
        running.assignment = running.assignment.with_(parts=2, before=best)
        self._again.append(trial)
        self._report(f"trial {trial}: {reason}; it is begun again")

    def ended(self, trial: str, *, error: str | None = None) -> TrialResult | None:
        """Write a trial into the ledger, and tell the sampler."""
        running = self.running.pop(trial, None)
        if running is None:
            return None
        result = self._result(running, error)
        records.create_or_read(self.store, keys.trial(self.request.id, trial), result)
        # Nobody goes on from where it got to.
        self.store.delete(
            keys.checkpoint(self.request.id, running.assignment.config.digest, running.assignment.seed)
        )
        self.ledger.append(result)
        steps = [(point.rung, value) for point, value in zip(running.curve, running.objectives, strict=True)]
        others = vector(self.request.objectives, result.objectives)
        self._sampler.tell(running.proposal, result.state, steps, others)
        if running.arm is not None:
            self._arms[running.arm].running -= 1
            _learn(self._arms[running.arm], result)
            self._trade.learn(running.arm, result)
        message = f"trial {trial} failed: {result.error}" if result.state is TrialState.FAILED else None
        self._report(message)
        return result

    def _result(self, running: Running, error: str | None) -> TrialResult:
        last = running.last
        outcome = "failed" if error else last.get("outcome", "stopped")
        state = {
            "complete": TrialState.COMPLETE,
            "failed": TrialState.FAILED,
            "stopped": TrialState.STOPPED,
            # It was still going when it ended: cut by the pruner, or with everything else.
            "running": TrialState.PRUNED if running.pruned else TrialState.STOPPED,
        }[outcome]
        best = max(range(len(running.objectives)), key=running.objectives.__getitem__, default=None)
        task = running.assignment
        return TrialResult(
            search=task.search,
            trial=task.trial,
            number=task.number,
            state=state,
            config=task.config.model_dump(mode="json"),
            parameters=running.point,
            origin=running.origin,
            curve=tuple(running.curve),
            value=None if best is None else running.objectives[best],
            metrics={} if best is None else running.curve[best].metrics,
            objectives=self.costs(task.config),
            weights_key=last.get("weights_key"),
            seconds=last.get("seconds", 0.0),
            feature_s=last.get("feature_s", 0.0),
            error=error or last.get("error"),
            notes=tuple(last.get("notes", ())),
            seed=task.seed,
            created_at=now(),
        )

    # ------------------------------------------------------------------------------------------ telling

    def _report(self, message: str | None = None) -> None:
        self.emit(self.event(message))

    def event(self, message: str | None = None) -> ProgressEvent:
        """Where the search stands, with what its running trials have reported."""
        begun = [self._result(running, None) for running in self.running.values() if running.curve]
        best = select.counts(self.ledger + begun, self.request.metric)
        ended = select.counts(self.ledger, self.request.metric)
        return ProgressEvent(
            elapsed_s=self.clock() - self.search_started,
            budget_s=self.request.budget_s,
            running=len(self.running),
            message=message,
            **ended | {name: best[name] for name in ("best_value", "best_config")},
        )


def _learn(record: ArmRecord, result: TrialResult) -> None:
    """What a trial teaches about its arm."""
    if result.value is None:
        record.failed += 1
    else:
        record.values.append(result.value)
    record.seconds.append(result.seconds - result.feature_s)


def _digest(result: TrialResult) -> str:
    return TrialConfig.model_validate(result.config).digest
