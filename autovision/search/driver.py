"""What a search knows and decides while it runs: which trial next, which goes on, what the ledger says.

Plain Python without Ray, so that it can be driven by Tune or by a simulation.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from autovision.records.searches import SearchRequest
from autovision.records.trials import CurvePoint, TrialResult, TrialState
from autovision.search.arms import Arm, arm_of, arms_of
from autovision.search.begun import Begun, Member, Running, heads_of, told_by
from autovision.search.constraints.limits import values_of
from autovision.search.costing.cost import CostModel, config_of
from autovision.search.lessons import Lessons, all_late, best_head
from autovision.search.progress import ProgressEvent
from autovision.search.proposer import Drawn, Proposer
from autovision.search.schedulers import Verdict
from autovision.search.sharing.shares import UNLIMITED
from autovision.search.warm import Start
from autovision.space import Space
from autovision.space.config import TrialConfig
from autovision.store import keys, records
from autovision.store.protocol import Store
from autovision.trial.assignment import Assignment

_SPARING = 8
"""of the trials that a request still allows, heads are trained together that are at most one of so many"""


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
    gpu_share: float = 1.0
    """of the GPU of a trial, if it has one: what others leave to it"""
    left_out: frozenset[str] = frozenset()
    """backbones that cannot be used here"""
    fault: Callable[[TrialConfig], str | None] = lambda config: None
    """why a configuration breaks the request's limits; None: it does not"""
    costs: Callable[[TrialConfig], dict[str, float]] = lambda config: {}
    """what a model of a configuration costs, in each of the request's objectives"""
    clock: Callable[[], float] = time.time
    """seconds since the epoch; a simulation turns its own"""
    emit: Callable[[ProgressEvent], None] = lambda event: None
    together: bool = True
    """whether heads on the same features are trained together"""
    cost_aware: bool = True
    """whether what trials take matters to which are tried"""
    images: int | None = None
    """that trials are judged on; None: so many that chance has no say"""
    nearly_s: float = 2.0
    """a trial that would end within so many seconds is neither paused nor stopped for being behind"""
    finishing_s: Callable[[TrialConfig | None], float] = lambda best: 0.0
    """seconds before the deadline that finishing the best configuration so far will take"""
    extended_trials: int | None = None
    """that the search may begin in all, since that was extended; None: what the request says"""
    share: Callable[[], int] = lambda: UNLIMITED
    """trials that may be at work at once beside those of other searches"""

    def __post_init__(self) -> None:
        arms = [
            arm
            for arm in arms_of(self.space)
            if dict(arm).get("backbone") not in self.left_out and self._admits(arm)
        ]
        self._lessons = Lessons(self.request, self.space, arms, self.images)
        self.running: dict[str, Running] = {}
        """by the trial, or the first of the heads"""
        self.paused: dict[str, Running] = {}
        self.suspended = False
        self.exhausted = False
        """whether there was nothing left to try when it was asked last"""
        self._finishing: tuple[str | None, float] = None, self.finishing_s(None)
        """the best trial, and what finishing it takes"""
        self._again: list[str] = []
        begun = records.read_all(self.store, keys.begun(self.request.id), Begun)
        numbers = [r.number for r in self.ledger] + [m.number for b in begun for m in b.members]
        self._next_number = 1 + max(numbers, default=-1)
        self._proposer = Proposer(
            space=self.space,
            sampler=self._lessons.sampler,
            cost=self.cost,
            starts=self.starts,
            arms=self._lessons.arms,
            usable=self._usable,
            tried={_digest(r.config) for r in self.ledger}
            | {m.config.digest for b in begun for m in b.members},
            best_head=lambda arm: best_head(self.ledger, arm),
            together=self.together and self.request.workers_per_trial == 1,
            view=lambda arms: self._lessons.trade.records(arms, self._next_number),
            more_s=lambda config: max(0.0, self.finishing_s(config) - self._finishing[1]),
            cost_aware=self.cost_aware,
            noise=self._lessons.noise,
        )
        self._replay(begun)

    # ------------------------------------------------------------------------------------------ taking up

    def _replay(self, begun: list[Begun]) -> None:
        """What the ledger and the trials that were begun teach, as if it had happened here."""
        ended = {result.trial for result in self.ledger}
        self._lessons.replay(self.ledger)
        revived = [running for each in begun if (running := self._revived(each, ended)) is not None]
        self._lessons.compare(self.ledger, revived)
        for trial in self.paused:
            self._lessons.scheduler.waits(trial)

    def _revived(self, begun: Begun, ended: set[str]) -> Running | None:
        """A trial that was begun and has not ended: it goes on, or stays paused."""
        running = Running.of(begun, None)
        running.members = [member for member in running.members if member.trial not in ended]
        key = begun.assignment.trial
        if not running.members:
            self.store.delete(keys.begun_trial(self.request.id, key))
            return None
        running.arm = arm_of(running.lead.point, list(self._lessons.arms))
        if running.paused:
            self._lessons.pauses(running)
            self.paused[key] = running
        else:
            for member in running.members:
                member.proposal = self._lessons.sampler.ask(member.point).number
            self.running[key] = running
            self._again.append(key)
            if running.arm is not None:
                self._lessons.arms[running.arm].running += 1
        return running

    # ------------------------------------------------------------------------------------------ deciding

    def next(self) -> Assignment | None:
        """The next trial to begin, or to go on with; None if nothing more fits into the budget."""
        remaining = self._until() - self.clock()
        if remaining <= 0.5 and (self._lessons.valued or self.at_work or (self.ledger and not self._again)):
            return None  # without any value, the first trial may overrun
        if self._again:
            return self._go_on_with(self.running[self._again.pop(0)])
        for trial in self._lessons.scheduler.promoted():
            if self.paused[trial].remaining_s <= remaining:
                return self._resume(trial)
        left = self.most - self.begun if self.most else 10**9
        # Where trials are what is scarce, each is to learn from those before it.
        most = max(1, left // _SPARING)
        drawn = self._proposer.draw(remaining, most, first=not self._lessons.valued) if left > 0 else []
        self.exhausted = left > 0 and self._proposer.all_tried
        if drawn:
            return self._begin(drawn)
        if self._proposer.out_of_time:
            # Better the best of those that are behind than nothing.
            for trial in self._lessons.scheduler.best_first():
                if self.paused[trial].remaining_s <= remaining:
                    return self._resume(trial)
        return None

    def _begin(self, drawn: list[Drawn]) -> Assignment:
        members = []
        for each in drawn:
            number, config = self._next_number, each.config
            self._next_number += 1
            trial = f"{self.attempt:02d}-{number:05d}-{config.digest[:6]}"
            members.append(
                Member(
                    trial,
                    number,
                    config,
                    each.proposal.point,
                    each.origin,
                    each.proposal.number,
                    costs=self.costs(config),
                )
            )
        lead, arm = members[0], drawn[0].arm
        assignment = Assignment(
            store=self.store.uri,
            search=self.request.id,
            trial=lead.trial,
            number=lead.number,
            dataset=f"{self.request.dataset}@{self.request.dataset_version}",
            config=lead.config,
            metric=self.request.metric,
            costs=self.request.costs,
            seed=self.request.seed,
            deadline=self._until(),
            must_report=not self._lessons.valued,
            search_started=self.search_started,
            initial_model=drawn[0].initial,
            champion=self.request.parent_model,
            threads=self.threads,
            workers=self.request.workers_per_trial,
            gpu=self.gpu,
            gpu_share=self.gpu_share,
            heads=heads_of(members),
        )
        running = Running(assignment, members, arm, self.cost.begin(lead.config))
        self.running[lead.trial] = running
        if arm is not None:
            self._lessons.arms[arm].running += 1
        records.create(self.store, keys.begun_trial(self.request.id, lead.trial), running.record())
        self._report()
        return assignment

    def _resume(self, trial: str) -> Assignment:
        """Go on with a paused trial."""
        running = self._unpaused(trial)
        running.paused = False
        self.running[trial] = running
        if running.arm is not None:
            self._lessons.arms[running.arm].running += 1
        self._save(running)
        return self._go_on_with(running)

    def _unpaused(self, trial: str) -> Running:
        self._lessons.scheduler.waits_no_more(trial)
        return self.paused.pop(trial)

    def _go_on_with(self, running: Running) -> Assignment:
        self._report()
        if running.expected is None and not running.reported:
            running.expected = self.cost.begin(running.lead.config)
        return running.take_up(
            deadline=self._until(),
            search_started=self.search_started,
            must_report=not self._lessons.valued,
            threads=self.threads,
            gpu=self.gpu,
            gpu_share=self.gpu_share,
            heads=heads_of(running.members, batch=bool(running.assignment.heads)),
        )

    def add_starts(self, starts: list[Start]) -> None:
        """Points to try next, which could not be known before."""
        self._proposer.add_starts(starts)

    def _usable(self, config: TrialConfig) -> bool:
        return config.backbone not in self.left_out and self.fault(config) is None

    def _admits(self, arm: Arm) -> bool:
        """Whether some depth of an arm meets the limits: where nothing is unfrozen, depth is the sampler's choice."""
        config = config_of(arm, self.space.config(self.space.default()).model_dump())
        depths = [config.drop_stages]
        if "drop_stages" not in dict(arm):
            depths += values_of(self.space.parameters.get("drop_stages"), config.drop_stages)
        return any(self.fault(config.with_(drop_stages=depth)) is None for depth in depths)

    def _until(self) -> float:
        """Seconds since the epoch, after which no trial works: what is the best so far has to be finished, too."""
        best = self._lessons.best
        trial = None if best is None else best.trial
        if self._finishing[0] != trial:
            config = None if best is None else TrialConfig.model_validate(best.config)
            self._finishing = trial, self.finishing_s(config)
        return self.deadline - self._finishing[1]

    @property
    def pending_first(self) -> bool:
        """Whether the budget may not end yet, because a trial is about to give the first value of all."""
        first = any(running.assignment.must_report for running in self.running.values())
        return first and not self._lessons.valued

    @property
    def at_work(self) -> int:
        """What takes a place: a trial, or heads that are trained together; not who waits to be begun again."""
        return len(self.running) - len(self._again)

    @property
    def wants(self) -> int | None:
        """How many trials there is a use for at once; None: as many as there is room for."""
        return None if self.most is None else max(0, self.most - len(self.ledger))

    @property
    def most(self) -> int | None:
        """Trials that may be begun in all; None: as many as the seconds allow."""
        return self.request.max_trials if self.extended_trials is None else self.extended_trials

    @property
    def begun(self) -> int:
        """Trials, however they ended or will."""
        return len(self.ledger) + sum(len(each.members) for each in self.running.values()) + len(self.paused)

    def goes_on(self, trial: str, result: dict[str, Any]) -> bool:
        """Take in what a worker reported at a rung; whether it may go on."""
        running = self.running.get(trial)
        if running is None:
            return False
        news = False
        for member, told in told_by(running, result):
            member.last |= {name: value for name, value in told.items() if name not in ("point", "points")}
            for point, objective in _points(told):  # what trained before a failure is stored and counts
                news = member.take(point, objective) or news
        running.paused = running.stopped = False
        if not news:
            return True
        if running.expected is not None:
            self.cost.observe(running.expected, running.curve_of_each(result), result["feature_s"])
        for each in running.results():
            self._lessons.tally.consider(each)
        done, verdict = bool(result.get("done")), Verdict.GO_ON
        if not running.assignment.heads:
            report, verdict = self._lessons.judge(running, done=done)
            nearly = running.remaining_s < self.nearly_s and report.score > float("-inf")
            if done or (nearly and verdict is not Verdict.GO_ON):
                verdict = Verdict.GO_ON
            elif verdict is Verdict.GO_ON and self.at_work > self.share() and not nearly:
                # Another search has come: this trial gives its place, and goes on when there is one again.
                verdict = Verdict.PAUSE
        running.paused, running.stopped = verdict is Verdict.PAUSE, verdict is Verdict.STOP
        if not done:
            self._save(running)
        self._report()
        return verdict is Verdict.GO_ON

    # ------------------------------------------------------------------------------------------ recording

    def _save(self, running: Running) -> None:
        """So that the next attempt finds what this one knows of a trial, should this one be killed."""
        key, record = keys.begun_trial(self.request.id, running.assignment.trial), running.record()
        records.update(self.store, key, Begun, lambda _: record)

    def lost(self, trial: str, reason: str) -> None:
        """The worker of a trial is gone. The trial is begun once more, and ends as failed the next time.

        Workers are lost for lack of memory most of all: the kernel and Ray kill who takes too much. The second one
        therefore computes each batch in two parts. It goes on from the trial's checkpoint, if there is one.

        Of several workers Ray Train starts those anew that are lost. What is lost here is the process that speaks for
        them, with its node: it computes nothing, and its next one needs no less memory.
        """
        running = self.running.get(trial)
        if running is None or running.assignment.before.losses:
            self.ended(trial, error=reason)
            return
        task = running.assignment
        parts = 2 if task.workers == 1 else task.parts
        running.assignment = task.with_(before=task.before.with_(losses=1), parts=parts)
        running.take_up()
        self._again.append(trial)
        self._report(f"trial {trial}: {reason}; it is begun again")

    def ended(self, trial: str, *, error: str | None = None) -> list[TrialResult]:
        """A worker's work is over: write its trials into the ledger, unless they are paused, and tell the sampler."""
        running = None if self.suspended else self.running.pop(trial, None)
        if running is None:
            return []
        if running.arm is not None:
            self._lessons.arms[running.arm].running -= 1
        if running.paused and error is None:
            self.paused[trial] = running
            self._lessons.scheduler.waits(trial)
            self._lessons.pauses(running)
            self._report()
            return []
        return self._record(running, error)

    def suspend(self) -> None:
        """Somebody stopped the search, who may go on with it: what runs stays as begun as it is."""
        self.suspended = True

    @property
    def results(self) -> list[TrialResult]:
        """The ledger, and what the trials that have not ended have come to."""
        going = (*self.running.values(), *self.paused.values())
        return [*self.ledger, *(r for running in going if running.reported for r in running.results())]

    def close(self) -> None:
        """The search is over: whatever runs or is paused is written into the ledger as it is."""
        for trial in list(self.running):
            self.ended(trial)
        for trial in list(self.paused):
            self._record(self._unpaused(trial), None)

    def _record(self, running: Running, error: str | None) -> list[TrialResult]:
        results = running.results(error)
        for result in results:
            records.create_or_read(self.store, keys.trial(self.request.id, result.trial), result)
            self.ledger.append(result)
        self._lessons.ends(running, results)
        self.store.delete(keys.begun_trial(self.request.id, running.assignment.trial))
        task = running.assignment
        if not task.heads:
            # Nobody goes on from where it got to.
            self.store.delete(keys.checkpoint(self.request.id, task.config.digest, task.seed))
        if running.arm is not None and all_late(results):
            self._proposer.give_up(running.arm)
        if task.heads:
            configs = [member.config for member in running.members]
            self._proposer.learn_heads(running.cost_s * len(results), configs)
        failed = [result for result in results if result.state is TrialState.FAILED]
        self._report(f"trial {failed[0].trial} failed: {failed[0].error}" if failed else None)
        return results

    # ------------------------------------------------------------------------------------------ telling

    def _report(self, message: str | None = None) -> None:
        self.emit(self.event(message))

    def event(self, message: str | None = None) -> ProgressEvent:
        """Where the search stands, with what its running trials have reported."""
        return ProgressEvent(
            elapsed_s=self.clock() - self.search_started,
            budget_s=self.request.budget_s,
            running=sum(len(running.members) for running in self.running.values()),
            paused=len(self.paused),
            most=self.most,
            finishing_s=self._finishing[1],
            message=message,
            **self._lessons.tally.counts(),
        )


def _points(told: dict[str, Any]) -> list[tuple[CurvePoint, float]]:
    """The rungs that a report tells of, each with its value."""
    if "point" in told:
        return [(CurvePoint.model_validate_json(told["point"]), told["objective"])]
    return [(CurvePoint.model_validate(point), objective) for point, objective in told.get("points", ())]


def _digest(config: dict[str, Any]) -> str:
    return TrialConfig.model_validate(config).digest
