"""What the results of a search teach whoever decides: its sampler, its scheduler, its arms, what is the best so far.

All of it follows from what is stored: `replay` and `compare` teach it again after a crash.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from autovision.records.searches import SearchRequest
from autovision.records.trials import TrialResult, TrialState
from autovision.search.arms import Arm, ArmRecord, arm_of, upper_mean
from autovision.search.begun import Running, reports_of
from autovision.search.multiobjective.objectives import Trade
from autovision.search.sampling.sampler import Sampler
from autovision.search.schedulers import Report, Verdict, scheduler_of
from autovision.search.select import Tally
from autovision.search.stopping import noise_of
from autovision.space import Space
from autovision.space.config import TrialConfig
from autovision.trial.execution import value_of

_GOOD = 4
"""one of so many heads of a batch is a good one: the best of many would be better only for their number"""


class Lessons:
    """Of one search.

    Args:
        arms: that may be tried.
        images: that trials are judged on; None: so many that chance has no say.
    """

    def __init__(self, request: SearchRequest, space: Space, arms: Iterable[Arm], images: int | None) -> None:
        self._request, self._images = request, images
        self.sampler = Sampler(space, request.seed, request.sampler, request.objectives)
        self.scheduler = scheduler_of(request.scheduler)
        self.trade = Trade(request.objectives, request.seed)
        self.arms = {arm: ArmRecord() for arm in arms}
        self.tally = Tally(request.metric)

    # ---------------------------------------------------------------------------------------- from what is stored

    def replay(self, ledger: Sequence[TrialResult]) -> None:
        """What trials teach that have ended, but for how they compare; as if it had happened here."""
        self.sampler.replay((result, self._steps(result)) for result in ledger)
        units: dict[str, list[TrialResult]] = {}
        for result in ledger:
            self.tally.add(result)
            units.setdefault(result.batch or result.trial, []).append(result)
        for unit in units.values():
            if (arm := arm_of(unit[0].parameters, list(self.arms))) is not None:
                self._learn(arm, unit)

    def compare(self, ledger: Sequence[TrialResult], going: Sequence[Running]) -> None:
        """What the scheduler was told of those that have ended and of those that have not, in that order again."""
        metric = self._request.metric
        costs = {result.trial: result.objectives for result in ledger}
        reports = [told for r in ledger if r.batch is None for told in reports_of(r, metric)]
        for running in going:
            if not running.assignment.heads:
                for result in running.results():
                    reports += reports_of(result, metric, ended=False)
                    costs[result.trial] = result.objectives
                    self.tally.consider(result)
        for _, _, report in sorted(reports, key=lambda item: item[:2]):
            self.scheduler.judge(report)
            self.trade.excels(report, self.scheduler.level(report), costs[report.trial])

    def _steps(self, result: TrialResult) -> list[tuple[int, float]]:
        return [(point.rung, value_of(point.metrics, self._request.metric)) for point in result.curve]

    # ---------------------------------------------------------------------------------------- from what happens

    def judge(self, running: Running, *, done: bool) -> tuple[Report, Verdict]:
        """A trial that is trained by itself has reported; one that has ended is one to compare with, too."""
        report = running.report(done=done)
        verdict = self.scheduler.judge(report)
        if self.trade.excels(report, self.scheduler.level(report), running.lead.costs):
            verdict = Verdict.GO_ON
        return report, verdict

    def pauses(self, running: Running) -> None:
        """To the sampler a paused trial is a pruned one; should it go on, it is told of again when it has ended."""
        for member in running.members:
            if not member.told:
                (result,) = running.results()
                if member.proposal >= 0:
                    self.sampler.tell(member.proposal, TrialState.PRUNED, member.steps, result)
                else:
                    self.sampler.replay([(result, member.steps)])
                member.told = True

    def ends(self, running: Running, results: Sequence[TrialResult]) -> None:
        """A trial has ended, or heads that were trained together."""
        for member, result in zip(running.members, results, strict=True):
            self.tally.add(result)
            if not member.told:
                self.sampler.tell(member.proposal, result.state, member.steps, result)
            elif result.state is not TrialState.PRUNED:
                self.sampler.replay([(result, member.steps)])
        if running.arm is not None:
            self._learn(running.arm, results)

    def _learn(self, arm: Arm, unit: Sequence[TrialResult]) -> None:
        """What a trial, or heads that were trained together, teach about their arm."""
        self.trade.learn(arm, unit)
        if all_late(unit):
            return  # which says nothing of how good it is
        record = self.arms[arm]
        values = [result.value for result in unit if result.value is not None]
        if values:
            record.values.append(upper_mean(values, _GOOD))
        else:
            record.failed += 1
        record.seconds.append(sum(result.seconds - result.feature_s for result in unit))
        record.each_s.append(record.seconds[-1] / len(unit))

    # ---------------------------------------------------------------------------------------- what it comes to

    @property
    def best(self) -> TrialResult | None:
        """The best trial so far, be it still running."""
        return self.tally.best

    @property
    def valued(self) -> bool:
        """Whether any trial has a value."""
        return self.tally.valued

    def noise(self) -> float:
        """Of values, by how few images they are judged on; of several objectives there is no such figure."""
        best = self.best
        if best is None or best.value is None or not self._images or self._request.objectives:
            return 0.0
        return noise_of(best.value, self._images)


def all_late(unit: Sequence[TrialResult]) -> bool:
    """Whether trials ended before they had any value, because there was no time for it."""
    return all(result.state is TrialState.STOPPED and result.value is None for result in unit)


def best_head(ledger: Sequence[TrialResult], arm: Arm) -> TrialConfig | None:
    """The best head so far on an arm's backbone."""
    backbone = dict(arm).get("backbone")
    heads = [
        result
        for result in ledger
        if result.value is not None
        and result.ladder == "probe"
        and backbone in (None, result.config["backbone"])
    ]
    best = max(heads, key=lambda result: (result.value, -result.number), default=None)
    return None if best is None else TrialConfig.model_validate(best.config)
