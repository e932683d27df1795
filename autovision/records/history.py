"""What became of a deployment: gathered from what is stored by `autovision.registry.history`, never stored itself."""

from __future__ import annotations

from pydantic import AwareDatetime

from autovision.records.base import Record
from autovision.records.deployments import AccuracyEstimate, DecisionKind, DetectorVerdict, LabelledAccuracy
from autovision.records.models import Interval
from autovision.records.searches import SearchStatus


class Reign(Record):
    """The time in which one model was champion; a model that was rolled back to has several."""

    model: str
    since: AwareDatetime
    until: AwareDatetime | None
    """None: it still is"""
    decision: str | None
    """the id of the one that made it champion; None: none is known, and `since` is a guess"""


class GroupFigure(Record):
    """A figure of one class, or of one subgroup, on held-out images."""

    value: float
    low: float | None
    """95 %; None: what its interval follows from was not kept"""
    high: float | None
    n: int | None


class ModelFigures(Record):
    """What a champion is known to do on the held-out images of its own data set version."""

    model: str
    dataset: str
    """`name@version`"""
    search: str
    parents: tuple[str, ...]
    registered_at: AwareDatetime
    n: int
    """held-out images"""
    accuracy: Interval
    metric: str
    """what its search was ranked by"""
    value: Interval | None
    """of the metric; None: its evaluation has no interval for it"""
    recall: dict[str, GroupFigure]
    """by class"""
    subgroups: dict[str, GroupFigure]
    """accuracy by `column=value`"""


class DriftWindow(Record):
    """One window of requests, as the monitor saw it."""

    report: str
    """id of the DriftReport"""
    model: str
    start: AwareDatetime
    end: AwareDatetime
    n: int
    alarm: bool
    detectors: tuple[DetectorVerdict, ...]
    estimate: AccuracyEstimate | None
    accuracy: LabelledAccuracy | None
    notes: tuple[str, ...]
    harm: bool | None
    """of an alarm: whether the labels that came next for its model had fewer right answers than were to be expected
    (95 %); None: no alarm, or no such labels yet"""
    search: str | None
    """that it led to"""


def reach(verdict: DetectorVerdict) -> float:
    """Score over threshold: 1 where the alarm begins. Of a threshold that is not above 0, 0, or 1 in an alarm."""
    if verdict.threshold > 0:
        return verdict.score / verdict.threshold
    return 1.0 if verdict.alarm else 0.0


class ToldDecision(Record):
    """A decision without its numbers, which `autovision controller why` has."""

    id: str
    at: AwareDatetime
    kind: DecisionKind
    accepted: bool
    what: str
    why: str
    subject: str | None
    waits: bool
    """not accepted for now: a person has yet to approve, or something to happen before a search"""
    made_champion: bool
    """whether another model was champion from then on"""


class SearchFacts(Record):
    """A search that was made for the deployment, or whose model became its champion."""

    search: str
    at: AwareDatetime
    """when it was asked for"""
    dataset: str
    """`name@version`"""
    status: SearchStatus
    reason: str
    decision: str | None
    """the id of the one that led to it; None: a person asked for it"""
    spent_s: float
    budget_s: float
    trials: int
    cost: float | None
    """in `currency`; None: nobody gave prices"""
    currency: str
    model: str | None
    became_champion: bool


class Month(Record):
    """A month, in UTC, in sums."""

    month: str
    """`2026-03`"""
    searches: int = 0
    """that were asked for"""
    spent_s: float = 0.0
    """by these"""
    cost: dict[str, float] = {}
    """of these, by currency; those without prices are not in it"""
    champions: int = 0
    """times that another model became champion"""
    windows: int = 0
    alarms: int = 0
    harmful: int = 0
    """alarms after which labels said that the model had become worse"""
    harmless: int = 0
    """alarms after which labels said that it had not"""
    requests: int = 0
    """captured, and still stored"""
    labelled: int = 0
    """requests that labels were given for, by the request's time where its id tells it"""


class Awaited(Record):
    """What one trigger of a re-search says."""

    trigger: str
    fires: bool
    why: str
    needs: str
    """what would make it fire; empty: it does, or nothing would"""
    at: AwareDatetime | None
    """when it fires by time alone"""


class HeldBack(Record):
    """What holds a re-search back that something asks for."""

    limit: str
    why: str
    until: AwareDatetime | None
    """None: time alone does not end it"""


class Standing(Record):
    """What would have to happen for the next search, as of the latest evaluation that was written down."""

    evaluated_at: AwareDatetime
    what: str
    """that was decided"""
    time_zone: str
    """of the policy"""
    triggers: tuple[Awaited, ...]
    limits: tuple[HeldBack, ...]
    spent_day_s: float | None
    """wall seconds of the re-searches of that day; None: the evaluation does not tell"""
    budget_day_s: float | None
    """that the policy allows now; None: any"""
    spent_month_s: float | None
    budget_month_s: float | None


class Overview(Record):
    """One deployment of many, in a few facts."""

    deployment: str
    dataset: str
    champion: str | None
    """None: nothing was promoted yet"""
    challenger: str | None
    updated_at: AwareDatetime
    """when the deployment was changed last"""
    window_end: AwareDatetime | None
    """of the latest window that was examined; None: none was"""
    alarm: bool | None
    """whether there was one in it"""
    alarming: tuple[str, ...]
    """detectors that raised it"""
    accuracy: LabelledAccuracy | None
    """by labels, of that window"""
    decided: str | None
    """the latest that was decided about searching again; None: nothing yet"""


class History(Record):
    """What became of a deployment."""

    deployment: str
    dataset: str
    uri: str
    """of the store"""
    since: AwareDatetime
    """nothing of before is in it, except who was champion then"""
    until: AwareDatetime
    """when it was gathered"""
    champion: str | None
    challenger: str | None
    """on its way to be champion"""
    metric: str
    """of the latest champion"""
    reigns: tuple[Reign, ...]
    """the oldest first, as all that follows"""
    models: dict[str, ModelFigures]
    """by id, in the order in which they became champions; one that is no longer stored is not in it"""
    windows: tuple[DriftWindow, ...]
    decisions: tuple[ToldDecision, ...]
    searches: tuple[SearchFacts, ...]
    months: tuple[Month, ...]
    """without gaps"""
    requests_counted: bool
    """False: there are so many files of requests that only some were counted, and each stands for others"""
    notes: tuple[str, ...]
    """where the records contradict each other, or something is missing"""
    standing: Standing | None = None
    """None: no controller has looked yet whether to search again"""

    @property
    def sums(self) -> Month:
        """All months together."""
        cost: dict[str, float] = {}
        for month in self.months:
            for currency, amount in month.cost.items():
                cost[currency] = cost.get(currency, 0.0) + amount
        numbers = [name for name, field in Month.model_fields.items() if field.annotation in (int, float)]
        sums = {name: sum(getattr(month, name) for month in self.months) for name in numbers}
        return Month(month="all", cost=cost, **sums)
