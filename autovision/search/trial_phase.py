"""The trials of an attempt, from what can be known before the first one until their budget is used up."""

from __future__ import annotations

import math
import time
from collections import Counter
from dataclasses import dataclass, replace

from autovision.model.footprint import Footprint, measure
from autovision.records.trials import TrialResult
from autovision.search import similarity
from autovision.search.attempt import Attempt
from autovision.search.constraints.footprints import remembered, runtime_here
from autovision.search.constraints.limits import Limits
from autovision.search.costing.cost import CostModel
from autovision.search.costing.node import this_node
from autovision.search.driver import Driver
from autovision.search.estimates.estimate import estimate
from autovision.search.feasibility import infeasible_backbones
from autovision.search.finishing.court import config_of_champion
from autovision.search.finishing.finish import evaluated
from autovision.search.multiobjective.model_costs import Costs
from autovision.search.progress import ProgressEvent
from autovision.search.reserve import Reserve
from autovision.search.select import best_trial
from autovision.search.sharing.placement import placement
from autovision.search.sharing.turn import Turn, lost
from autovision.search.tune_loop import nodes, run_trials
from autovision.search.warm import Start, similar_points, starting_points
from autovision.search.watch import Watch
from autovision.space import Space
from autovision.space.config import TrialConfig
from autovision.space.named import backbones_of
from autovision.trial.workbench import Workbench

_MEASURING_SHARE = 0.2
"""of the seconds that are left may go by before no more architectures are measured, where latency is an objective"""
_SKETCHED = 2
"""so many backbones say what a data set looks like"""


@dataclass
class Ran:
    """What trials came to.

    Attributes:
        stopped: whether a person stopped them.
        cost: what was learnt of speed; None: there were no trials.
        finish_by: seconds since the epoch, by which the winner should have been trained again.
    """

    ledger: list[TrialResult]
    stopped: bool = False
    cost: CostModel | None = None
    finish_by: float = math.inf


def trials_in_turn(attempt: Attempt, turn: Turn, bench: Workbench) -> Ran:
    """Run trials until the budget leaves just what finishing takes.

    Raises `LeaseLost`, and `InvalidInput` if nothing in the space can be tried.
    """
    return TrialPhase(attempt, turn, bench).run()


class TrialPhase:
    """What the trials of an attempt rest on, none of which changes while they run."""

    def __init__(self, attempt: Attempt, turn: Turn, bench: Workbench) -> None:
        self._attempt, self._turn, self._bench = attempt, turn, bench
        request = attempt.request
        self._space = Space.from_json(request.space)
        self._splits = bench.splits(f"{request.dataset}@{request.dataset_version}", request.parent_model)
        kind = this_node(workers=request.workers_per_trial)
        self._cost = CostModel(bench, self._splits, kind, warm=request.warm_start)
        self._left_out = infeasible_backbones(self._space, bench, request.licenses)
        self._limit()
        self._left_s, self._scarce = attempt.left()
        default = self._space.config(self._space.default())
        self._reserve = Reserve(
            request,
            self._cost,
            default,
            evaluated(self._splits),
            self._left_s,
            bench.threads,
            config_of_champion(attempt.store, request, self._splits),
        )

    def run(self) -> Ran:
        attempt, turn = self._attempt, self._turn
        ledger = attempt.trials()
        if all(result.value is None for result in ledger):
            self._estimate()
        driver = self._driver(ledger)
        watch = self._watch(driver)
        turn.follow(lambda: (driver.at_work, driver.wants))
        try:
            run_trials(driver, watch)
        finally:
            self._cost.keep()
        turn.finishing()
        if attempt.stop.lost:
            raise lost(attempt.request.id)
        stopped = attempt.stop.asked
        if not stopped:
            similarity.remember(self._bench, self._splits, _reported(driver))
        ended_early = None if stopped else _why_ended(driver, watch, self._scarce)
        attempt.set_state(ended_early=ended_early)
        if ended_early:
            attempt.tell(f"ended early: {ended_early}", driver.ledger)
        return Ran(driver.results, stopped, self._cost, self._finish_by(driver.results))

    def _limit(self) -> None:
        """Measure what the request limits or weighs, as it is served, and say what cannot be tried, and why."""
        attempt, request, space = self._attempt, self._attempt.request, self._space
        classes, runtime = len(self._splits.version.classes), runtime_here(request.runtime)

        def measured(config: TrialConfig) -> Footprint:
            attempt.tell(
                f"measuring {config.backbone} at {config.resolution or 'its own'} px as it is served"
            )
            return measure(config, classes, runtime)

        known = remembered(attempt.store, classes, measured, runtime)
        self._limits = Limits(request, classes, known)
        self._costs = Costs(request.objectives, classes, known)
        try:
            self._limits.explore(space, frozenset(self._left_out))
            until = time.time() + _MEASURING_SHARE * (attempt.granted_s - attempt.before.spent_s)
            guessed = self._costs.explore(
                space,
                lambda config: config.backbone not in self._left_out and self._limits.fault(config) is None,
                until=lambda: time.time() > until,
            )
        finally:
            # Where nothing meets the limits, too, it is told what there was and by how much it misses them.
            left_out = (f"left out {name}: {reason}" for name, reason in self._left_out.items())
            notes = (*left_out, *self._limits.notes)
            attempt.set_state(
                notes=notes,
                excesses=tuple(self._limits.excesses),
                feasibility_s=attempt.before.feasibility_s + time.time() - attempt.started,
            )
        if guessed:
            attempt.tell(guessed)
        for note in notes:
            attempt.tell(note)

    def _estimate(self) -> None:
        """Say what the budget buys."""
        before = self._attempt.before
        buys = estimate(
            self._cost,
            self._space,
            self._left_s,
            cpus=placement(nodes(), self._attempt.request.workers_per_trial).concurrent,
            finish_s=self._reserve(None),
            left_out=frozenset(self._left_out),
            per_hour=before.per_hour,
            currency=before.currency,
        )
        self._attempt.set_state(estimate=str(buys))
        self._attempt.tell(f"estimate: {buys}")

    def _driver(self, ledger: list[TrialResult]) -> Driver:
        attempt = self._attempt
        granted_s = attempt.granted_s
        unaffordable_s = granted_s - attempt.before.spent_s - self._left_s

        def emit(event: ProgressEvent) -> None:
            attempt.on_progress(
                replace(event, budget_s=granted_s, finishing_s=event.finishing_s + unaffordable_s)
            )

        return Driver(
            store=attempt.store,
            request=attempt.request,
            space=self._space,
            cost=self._cost,
            starts=starting_points(attempt.store, attempt.request, self._space),
            ledger=ledger,
            attempt=attempt.number,
            deadline=attempt.started + self._left_s,
            search_started=attempt.started - attempt.before.spent_s,
            threads=1,
            left_out=frozenset(self._left_out),
            fault=self._limits.fault,
            costs=self._costs,
            emit=emit,
            extended_trials=attempt.before.max_trials,
            share=self._turn.share,
            finishing_s=self._reserve,
            images=len(self._splits.validation),
        )

    def _watch(self, driver: Driver) -> Watch:
        attempt = self._attempt

        def late_starts() -> list[Start] | None:
            """From data sets that look like this one, as soon as features tell."""
            if not (seen := _reported(driver)):
                return None
            neighbours = similarity.neighbours(self._bench, self._splits, seen)
            return similar_points(attempt.store, attempt.request, self._space, neighbours)

        return Watch(
            driver,
            attempt.stop,
            len(self._splits.validation),
            backbones=tuple(backbones_of(self._space)),
            late_starts=late_starts if attempt.request.warm_start else lambda: None,
        )

    def _finish_by(self, results: list[TrialResult]) -> float:
        best = best_trial(results)
        evaluation_s = (
            0.0 if best is None else self._reserve.evaluation_s(TrialConfig.model_validate(best.config))
        )
        return self._attempt.started + self._left_s - evaluation_s


def _why_ended(driver: Driver, watch: Watch, scarce: str | None) -> str | None:
    """Why trials ended before the budget did; None: they did not, or all that were asked for were begun.

    Args:
        scarce: what to say if what ended them is that nothing more fits into the seconds that were left.
    """
    most = driver.most
    if watch.ended_early is not None or (most is not None and driver.begun >= most):
        return watch.ended_early
    return "everything in the space was tried" if driver.exhausted else scarce


def _reported(driver: Driver) -> list[TrialConfig]:
    """Of each backbone with a value, at the resolution with the most trials of any: the features are there."""
    configs = [TrialConfig.model_validate(result.config) for result in driver.ledger if result.curve]
    configs += [running.assignment.config for running in driver.running.values() if running.reported]
    named = Counter((config.backbone, config.weights, config.resolution) for config in configs)
    return [
        TrialConfig(backbone=backbone, weights=weights, resolution=resolution)
        for (backbone, weights, resolution), _ in named.most_common(_SKETCHED)
    ]
