"""Why a search ended as it did, from its ledger alone: what mattered, who won, what was cut, where the time went."""

from __future__ import annotations

import math
import warnings
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import optuna

from autovision.records.models import Candidate, FinishRecord
from autovision.records.searches import Excess, SearchRequest, SearchState, SearchStatus
from autovision.records.trials import TrialResult, TrialState
from autovision.search.begun import LADDER, ladder_of, reports_of
from autovision.search.following import elapsed_s
from autovision.search.multiobjective.front import Front, front_of
from autovision.search.requests import granted_s
from autovision.search.sampling.sampler import frozen_trial
from autovision.search.schedulers import Report, scheduler_of
from autovision.search.select import best_trial
from autovision.space import Constant, Space
from autovision.space.config import TrialConfig
from autovision.trial.execution import value_of

_CANDIDATES: Mapping[Candidate, str] = {
    "trained": "the best trial, which began anew",
    "from_champion": "the best trial, which began from the champion's weights",
    "recalibrated": "the champion, its probabilities and decisions fitted anew",
    "unchanged": "the champion as it is",
}
_LEAST_TRIALS = 8
"""fewer say nothing about what mattered"""


@dataclass(frozen=True)
class Moment:
    """When a trial became the best so far.

    Attributes:
        search_s: seconds since the search began.
        value: the search's metric on validation.
    """

    search_s: float
    trial: str
    value: float


@dataclass(frozen=True)
class Importance:
    """How much of the differences between trials a parameter explains.

    Attributes:
        share: of the variance of the value after the first rung, which all trials reach, 0 to 1 (functional ANOVA,
            Hutter et al. 2014).
        trials: of how many.
        best: the value of the parameter whose trials did best on average; None for numbers.
    """

    parameter: str
    share: float
    trials: int
    best: Any = None


@dataclass(frozen=True)
class Cut:
    """A trial that was pruned.

    Attributes:
        rung, epoch: where.
        value: what it had come to, by which trials are ranked: the metric, less a little of the log loss.
        needed: the least value with which a trial went on at that moment.
        seen: trials that it was compared with, itself included: of its kind, and of about its cost.
        why: `behind`: it had less than was needed; `no number`: its value was not finite; `shared`: it had what was
            needed, gave its place to another search of the cluster, and had none again.
    """

    trial: str
    rung: int
    epoch: int
    search_s: float
    value: float
    needed: float
    seen: int
    why: str = "behind"


@dataclass(frozen=True)
class Seconds:
    """Where the time went: by the clock, and summed over trials, which run side by side.

    Attributes:
        wall: of the search so far, by the clock; what is neither `feasibility` nor `finish` had trials run.
        feasibility, finish: of `wall`: before the first trials, and after the last; 0 in older records.
        first_value: from its beginning to its first value; None: there was none.
        features, training: of all trials.
        by_backbone: of all trials of each.
        pruned, failed: of the trials that ended so.
    """

    wall: float
    first_value: float | None
    features: float
    training: float
    by_backbone: Mapping[str, float]
    pruned: float
    failed: float
    feasibility: float = 0.0
    finish: float = 0.0

    @property
    def trials(self) -> float:
        """Of `wall`: in which trials ran."""
        return max(0.0, self.wall - self.feasibility - self.finish)


@dataclass(frozen=True)
class Winner:
    """The best trial, and what it has that the runner-up has not.

    Attributes:
        value: the metric on validation.
        runner_up: the best other trial; None: there is none.
        lead: how much better it is in the value that trials are ranked by, the metric less a fiftieth of the log loss:
            on validation, or, if both were judged once more, on train and validation.
        judged_on: which of these.
        differs: parameter -> its value, and the runner-up's.
        changed: parameter -> its value, where that is not the space's default.
    """

    trial: str
    origin: str
    value: float
    runner_up: str | None
    lead: float | None
    judged_on: str
    differs: Mapping[str, tuple[Any, Any]]
    changed: Mapping[str, Any]


@dataclass(frozen=True)
class Judged:
    """A trial that was judged once more: its value on validation, and on train (cross-validated) and validation.

    Of a re-search also what is expected of offering it: see `Contender`, here on both.
    """

    trial: str
    value: float
    confirmed: float
    expected: float | None = None
    chance: float | None = None
    at_risk: str = ""


@dataclass(frozen=True)
class Contender:
    """What might have become the model of a re-search.

    Attributes:
        candidate: see `records.models.Candidate`.
        told: what that is.
        value: on validation, by which trials are ranked; what is fitted there was fitted to other parts of it.
        expected: the same, less what is lost if the gates refuse it; by this they are ranked.
        chance: of the gates not to refuse it for a loss.
        at_risk: what one gate looks at, where the chance is the lowest, and what was seen there.
    """

    candidate: str
    told: str
    value: float
    expected: float | None = None
    chance: float | None = None
    at_risk: str = ""


@dataclass(frozen=True)
class Failure:
    """A reason for which trials failed, how many did, and one of them."""

    reason: str
    trials: int
    example: str


@dataclass(frozen=True)
class Rung:
    """What one rung of the ladder cost, and gave.

    Attributes:
        name: `feasibility`, before any trial; `probe`, heads alone; `shallow` or `deep`, by the stages that were
            unfrozen; `finish`.
        trials: on it; of the finish those whose weights the model has.
        batches: computations that its trials took; heads are trained together. None: it has no trials of its own.
        seconds: of all its trials, with features; of the first and the last by the clock.
        best: the best value of the metric on validation; None: there was none.
    """

    name: str
    trials: int | None
    batches: int | None
    seconds: float
    best: float | None


@dataclass(frozen=True)
class Finish:
    """How the model was made of the best trials.

    Attributes:
        trials: whose weights it has, the best first: averaged where they are several; none: it has the champion's.
        refit: images of train and validation together that these were trained again on; None: they were not.
        notes: how that was decided.
    """

    trials: Sequence[str]
    refit: int | None
    notes: Sequence[str]


@dataclass(frozen=True)
class Explanation:
    """All of it.

    Attributes:
        ladder: the rungs, from feasibility to the finish.
        ended: state -> how many trials ended so.
        improvements: each time that something better was found.
        left_out: what was found out before the first trial, such as backbones that could not be used.
        infeasible: by how much networks miss the limits on latency, memory and size.
        status: of the search; `error` says why it failed, `ended_early` why it ended before its budget.
        expected: what the budget was said to buy, before the first trial.
        front: of a search with several objectives.
        confirmed: trials that were judged once more before the model was chosen, the best first. It is the first of
            them, or a trial that cannot be judged so and whose lead on validation was larger.
        finish: None: there is no model.
        candidates: of a re-search the best trial and the champion, as they would serve, the best first: that is the
            model.
    """

    search: str
    metric: str
    ended: Mapping[str, int]
    ladder: Sequence[Rung]
    winner: Winner | None
    improvements: Sequence[Moment]
    importance: Sequence[Importance]
    pruned: Sequence[Cut]
    failures: Sequence[Failure]
    seconds: Seconds
    left_out: Sequence[str]
    front: Front | None = None
    confirmed: Sequence[Judged] = ()
    finish: Finish | None = None
    infeasible: Sequence[Excess] = ()
    status: str = ""
    error: str | None = None
    ended_early: str | None = None
    expected: str | None = None
    candidates: Sequence[Contender] = ()


def explain(
    request: SearchRequest,
    state: SearchState,
    ledger: Sequence[TrialResult],
    finished: FinishRecord | None = None,
) -> Explanation:
    """What can be said of a search by what it left, however far it came.

    Args:
        finished: how its model was made, if it has one.
    """
    space = Space.from_json(request.space)
    return Explanation(
        search=request.id,
        metric=request.metric,
        ended=dict(Counter(str(result.state) for result in ledger).most_common()),
        ladder=[*_before(state), *ladder(ledger, request.metric), *_after(state, finished)],
        winner=_winner(request, space, ledger, finished),
        improvements=improvements(ledger, request.metric),
        importance=importance(space, ledger, request.metric),
        pruned=cuts(ledger, request.metric, request.scheduler),
        failures=_failures(ledger),
        seconds=_seconds(request, state, ledger),
        left_out=state.notes,
        front=front_of(request, ledger, finished.trials[0] if finished else None),
        confirmed=[
            Judged(each.trial, each.value, each.confirmed, each.expected, each.chance, each.at_risk)
            for each in (finished.confirmed if finished else ())
        ],
        finish=_finish(finished),
        infeasible=state.excesses,
        status=str(state.status),
        error=state.error,
        ended_early=state.ended_early,
        expected=state.estimate,
        candidates=[
            Contender(
                each.candidate,
                _CANDIDATES[each.candidate],
                each.value,
                each.expected,
                each.chance,
                each.at_risk,
            )
            for each in (finished.candidates if finished else ())
        ],
    )


def _before(state: SearchState) -> list[Rung]:
    return [Rung("feasibility", None, None, state.feasibility_s, None)] if state.feasibility_s else []


def _after(state: SearchState, finished: FinishRecord | None) -> list[Rung]:
    if not state.finishing_s:
        return []
    made_of = _finish(finished)
    trials = None if made_of is None else len(made_of.trials)
    return [Rung("finish", trials, None, state.finishing_s, None)]


def _finish(finished: FinishRecord | None) -> Finish | None:
    if finished is None:
        return None
    if finished.candidate in ("recalibrated", "unchanged"):
        return Finish((), None, finished.notes)
    images = None if finished.refit is None else finished.refit.images
    return Finish(finished.trials, images, finished.notes)


def ladder(ledger: Sequence[TrialResult], metric: str) -> list[Rung]:
    """What each rung that has trials cost, and gave."""
    by_rung: dict[str, list[TrialResult]] = defaultdict(list)
    for result in ledger:
        by_rung[ladder_of(TrialConfig.model_validate(result.config))].append(result)
    return [
        Rung(
            name,
            len(trials := by_rung[name]),
            len({result.batch or result.trial for result in trials}),
            sum(result.seconds for result in trials),
            max((r.metrics[metric] for r in trials if metric in r.metrics), default=None),
        )
        for name in LADDER
        if name in by_rung
    ]


def improvements(ledger: Sequence[TrialResult], metric: str) -> list[Moment]:
    """Each time that a trial had a better value of the metric than all before it."""
    found: list[Moment] = []
    reached = sorted(
        (point.search_s, result.trial, point.metrics[metric])
        for result in ledger
        for point in result.curve
        if math.isfinite(point.metrics.get(metric, math.nan))
    )
    for search_s, trial, value in reached:
        if not found or value > found[-1].value:
            found.append(Moment(search_s, trial, value))
    return found


def cuts(ledger: Sequence[TrialResult], metric: str, scheduler: str = "halving") -> list[Cut]:
    """The pruned trials, in the order in which they were; what they needed comes of making every decision again."""
    judges = scheduler_of(scheduler)
    reports = sorted(
        ((*each, result) for result in ledger if result.batch is None for each in reports_of(result, metric)),
        key=lambda each: each[:2],
    )
    found = []
    for search_s, _, report, result in reports:
        judges.judge(report)
        point = result.curve[-1]
        if result.state is TrialState.PRUNED and report.rung == point.rung:
            needed, seen = judges.needed(report), len(judges.scores(report))
            cut = Cut(result.trial, point.rung, point.epoch, search_s, report.value, needed, seen)
            found.append(replace(cut, why=_why(report, needed)))
    return found


def _why(report: Report, needed: float) -> str:
    if not math.isfinite(report.value):
        return "no number"
    return "behind" if report.score < needed else "shared"


def importance(space: Space, ledger: Sequence[TrialResult], metric: str) -> list[Importance]:
    """What explains the differences between trials after their first rung, the most important first.

    Where a parameter has no effect, and a trial does not have it, its default stands in. Nothing is said with fewer
    than eight trials.
    """
    valued = [
        frozen
        for result in ledger
        if result.curve
        and math.isfinite(first := value_of(result.curve[0].metrics, metric))
        and (frozen := frozen_trial(space, result.parameters, TrialState.COMPLETE, [(0, first)])) is not None
    ]
    having = {
        name: [frozen for frozen in valued if name in frozen.params]
        for name, parameter in space.parameters.items()
        if not isinstance(parameter, Constant)
    }
    varied = {
        name: trials
        for name, trials in having.items()
        if len(trials) >= _LEAST_TRIALS and len({repr(frozen.params[name]) for frozen in trials}) > 1
    }
    if not varied or len({frozen.value for frozen in valued}) < 2:
        return []
    distributions = {name: trials[0].distributions[name] for name, trials in varied.items()}
    absent = {name: space.parameters[name].start() for name in varied}
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize")
    for frozen in valued:
        params = {name: frozen.params.get(name, absent[name]) for name in varied}
        study.add_trial(
            optuna.trial.create_trial(params=params, distributions=distributions, value=frozen.value)
        )
    shares = _shares(study)
    found = [
        Importance(name, float(shares.get(name, 0.0)), len(trials), _best_choice(name, trials))
        for name, trials in varied.items()
    ]
    return sorted(found, key=lambda each: -each.share)


def _shares(study: optuna.Study) -> dict[str, float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
        found: dict[str, float] = optuna.importance.get_param_importances(
            study, evaluator=evaluator, normalize=False
        )
        return found


def _best_choice(name: str, trials: Sequence[optuna.trial.FrozenTrial]) -> Any:
    if not isinstance(trials[0].distributions[name], optuna.distributions.CategoricalDistribution):
        return None
    values: dict[Any, list[float]] = defaultdict(list)
    for trial in trials:
        assert trial.value is not None
        values[trial.params[name]].append(trial.value)
    return max(values, key=lambda choice: sum(values[choice]) / len(values[choice]))


def _winner(
    request: SearchRequest, space: Space, ledger: Sequence[TrialResult], finished: FinishRecord | None
) -> Winner | None:
    by_trial = {result.trial: result for result in ledger}
    best = by_trial.get(finished.trials[0]) if finished else best_trial(ledger)
    if best is None:
        return None
    second = best_trial([result for result in ledger if result.trial != best.trial])
    lead = None if second is None else (best.value or 0.0) - (second.value or 0.0)
    judged_on = "validation"
    if finished and len(finished.confirmed) > 1 and finished.confirmed[0].trial == best.trial:
        first, next_one = finished.confirmed[:2]
        second = by_trial.get(next_one.trial)
        lead = (first.confirmed if first.expected is None else first.expected) - (
            next_one.confirmed if next_one.expected is None else next_one.expected
        )
        judged_on = "train and validation"
    default = space.config(space.default()).resolved().model_dump(mode="json")
    own = TrialConfig.model_validate(best.config).resolved().model_dump(mode="json")
    theirs = (
        {} if second is None else TrialConfig.model_validate(second.config).resolved().model_dump(mode="json")
    )
    return Winner(
        trial=best.trial,
        origin=best.origin,
        value=best.metrics[request.metric],
        runner_up=None if second is None else second.trial,
        lead=lead,
        judged_on=judged_on,
        differs={name: (own[name], theirs[name]) for name in theirs if own[name] != theirs[name]},
        changed={name: value for name, value in own.items() if value != default[name]},
    )


def _failures(ledger: Sequence[TrialResult]) -> list[Failure]:
    by_reason: dict[str, list[str]] = defaultdict(list)
    for result in ledger:
        if result.error:
            by_reason[result.error.strip().splitlines()[-1]].append(result.trial)
    return [
        Failure(reason, len(trials), trials[0])
        for reason, trials in sorted(by_reason.items(), key=lambda each: -len(each[1]))
    ]


def _wall_s(request: SearchRequest, state: SearchState, ledger: Sequence[TrialResult]) -> float:
    """By the clock; of a search that runs until now, but not beyond its budget: its process may be gone."""
    if state.status is not SearchStatus.RUNNING:
        return state.spent_s
    told_s = max((point.search_s for result in ledger for point in result.curve), default=0.0)
    return max(told_s, min(elapsed_s(state), granted_s(request, state)))


def _seconds(request: SearchRequest, state: SearchState, ledger: Sequence[TrialResult]) -> Seconds:
    by_backbone: Counter[str] = Counter()
    for result in ledger:
        by_backbone[str(result.config["backbone"])] += result.seconds  # type: ignore[assignment]
    features = sum(result.feature_s for result in ledger)

    def of(which: TrialState) -> float:
        return sum(result.seconds for result in ledger if result.state is which)

    return Seconds(
        wall=_wall_s(request, state, ledger),
        first_value=min((result.curve[0].search_s for result in ledger if result.curve), default=None),
        features=features,
        training=sum(result.seconds for result in ledger) - features,
        by_backbone=dict(by_backbone.most_common()),
        pruned=of(TrialState.PRUNED),
        failed=of(TrialState.FAILED),
        feasibility=state.feasibility_s,
        finish=state.finishing_s,
    )
