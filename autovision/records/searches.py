"""Searches: what is asked, how it stands, who else runs on the cluster and what that has."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, Field

from autovision.records.base import Record, digest_of

MOST_PRIORITY = 10
"""each step doubles a share, so that this is a thousand times the share of an ordinary search"""

Costs = dict[str, dict[str, float]]
"""true class -> answered class -> what that answer costs"""


class PriceTable(Record):
    """What a cluster costs for an hour; see `autovision.search.estimates.prices`."""

    currency: str = Field(min_length=1, max_length=8)
    cpu: float | None = Field(default=None, ge=0)
    """of one CPU"""
    gpu: float | None = Field(default=None, ge=0)
    """of one GPU of a kind that is not in `gpus`"""
    gpus: dict[str, Annotated[float, Field(ge=0)]] = {}
    """of one GPU, by Ray's accelerator type"""
    nodes: dict[str, Annotated[float, Field(ge=0)]] = {}
    """of a whole node, by the value of one of its labels"""


_LATER = (
    "licenses",
    "workers_per_trial",
    "scheduler",
    "max_latency_ms",
    "max_memory_mb",
    "max_size_mb",
    "runtime",
    "patience_s",
    "converged",
    "max_cost",
    "prices",
    "priority",
    "costs",
    "refit",
    "soup",
    "confirm",
    "sampler",
    "objectives",
    "margin",
    "subgroup",
    "robustness_margin",
    "robustness_images",
)
"""fields of a request that came later than the first searches"""


class SearchRequest(Record):
    """A declaration of a search. The same request twice is one search: its id is its digest."""

    dataset: str
    dataset_version: int
    dataset_digest: str
    space: dict[str, Any]
    """the search space in its JSON form"""
    budget_s: float = Field(gt=0)
    max_trials: int | None = Field(default=None, ge=1)
    """None: as many as the budget allows"""
    seed: int = 0
    metric: str = "accuracy"
    """what validation is ranked by; see `autovision.metrics.METRICS`"""
    scheduler: str = "halving"
    """which of the trials that have reported go on; see `autovision.search.schedulers`"""
    warm_start: bool = True
    """begin from what earlier searches and the champion know"""
    parent_model: str | None = None
    """the champion that the search starts from"""
    deployment: str | None = None
    """where the result wants to be promoted; None: nowhere"""
    reason: str = "submitted by hand"
    nonce: str = ""
    """makes an otherwise equal request another search"""
    licenses: tuple[str, ...] = ()
    """licences, in lower case and sorted, that the backbones' weights may have; empty: any"""
    workers_per_trial: int = Field(default=1, ge=1)
    """that train each trial together, on one GPU each where the cluster has any, else on one CPU each"""
    max_latency_ms: float | None = Field(default=None, gt=0)
    """of one image at a time, on `runtime`, where the search runs; decoding and HTTP not included"""
    max_memory_mb: float | None = Field(default=None, gt=0)
    """10⁶ bytes that a process holds at most which serves the model"""
    max_size_mb: float | None = Field(default=None, gt=0)
    """10⁶ bytes of the model's file of weights"""
    runtime: str = "evaluated"
    """that latency and memory are measured on, as limits and as objectives; `evaluated`: the one that models are
    evaluated with; see `autovision.records.runtimes`"""
    sampler: str = "tpe"
    """what draws configurations; see `autovision.search.sampling.samplers`"""
    objectives: tuple[str, ...] = ()
    """what is minimised beside the metric; see `autovision.search.multiobjective.objectives.COSTS`"""
    patience_s: float | None = Field(default=None, gt=0)
    """end after so many seconds in which the best did not rise above noise; None: never"""
    converged: bool = False
    """end when the rest of the budget is not expected to raise the best above noise"""
    max_cost: float | None = Field(default=None, gt=0)
    """what the search may cost, in the currency of `prices`"""
    prices: PriceTable | None = None
    """by which `max_cost` is counted"""
    priority: int = Field(default=0, ge=-MOST_PRIORITY, le=MOST_PRIORITY)
    """higher is begun earlier, and each step up doubles the share of a cluster that several searches share"""
    costs: Costs | None = None
    """of answers, for the metric `neg_mean_cost`"""
    refit: bool = True
    """train the winner again on train and validation together, if the budget allows it"""
    soup: bool = True
    """average the weights of the best trials where validation says that it helps"""
    confirm: bool = True
    """judge the best heads once more before one is chosen, by cross-validation on train"""
    margin: float = Field(default=0.03, gt=0, allow_inf_nan=False)
    """of the deployment's gates, where a champion is to be succeeded: see `GatePolicy`"""
    subgroup: str | None = None
    """metadata column whose values the gates protect, likewise"""
    robustness_margin: float | None = Field(default=None, gt=0, lt=1)
    """likewise, of accuracy on corrupted images; None: nobody looks at them"""
    robustness_images: int = Field(default=100, ge=1)
    """likewise, how many test images are corrupted at most"""

    @property
    def id(self) -> str:
        # A field that came later than the first searches leaves their ids as they are, unless it says something.
        fields = type(self).model_fields
        later = {name for name in _LATER if getattr(self, name) == fields[name].default}
        body = self.model_dump(mode="json", exclude={"reason", *later})
        return f"{self.dataset}-{digest_of(body)[:12]}"


class SearchStatus(StrEnum):
    """The life of a search. Terminal: FINISHED, FAILED."""

    QUEUED = "queued"
    """accepted, nobody works on it"""
    RUNNING = "running"
    """a driver holds its lease"""
    STOPPED = "stopped"
    """interrupted or stopped by a person; `resume` continues it"""
    FINISHED = "finished"
    """its model is registered"""
    FAILED = "failed"
    """no trial gave a model; `error` says why; `resume` tries again"""

    @property
    def terminal(self) -> bool:
        return self in (SearchStatus.FINISHED, SearchStatus.FAILED)


class Excess(Record):
    """By how much the smallest of some networks that misses a limit of a request misses it."""

    networks: str
    """a backbone, and what sets these apart from its other networks"""
    of: Literal["latency", "memory", "size"]
    value: float
    limit: float
    unit: str
    runtime: str = ""
    """that it was measured on; empty: it follows from the configuration"""


class SearchState(Record):
    """The one mutable record of a search; changed by compare-and-swap only."""

    search: str
    status: SearchStatus = SearchStatus.QUEUED
    attempt: int = 0
    """how often a driver has begun it"""
    spent_s: float = 0.0
    """wall seconds used, over all attempts"""
    trials: int = 0
    best_trial: str | None = None
    best_value: float | None = None
    model: str | None = None
    error: str | None = None
    stop_requested: bool = False
    notes: tuple[str, ...] = ()
    """what was found out before the first trial, e.g. which backbones were left out and why"""
    excesses: tuple[Excess, ...] = ()
    """of what misses the request's limits"""
    feasibility_s: float = 0.0
    """of `spent_s`: before the first trials, in which backbones are loaded and architectures measured"""
    finishing_s: float = 0.0
    """of `spent_s`: choosing, averaging, training again, calibrating and evaluating the winner"""
    budget_s: float | None = None
    """wall seconds that it may use in all, once it was extended; None: what the request says"""
    max_trials: int | None = None
    """the same of trials"""
    max_cost: float | None = None
    """the same of what it may cost"""
    estimate: str | None = None
    """what the budget was expected to buy, before the first trial"""
    ended_early: str | None = None
    """why it ended before its budget did"""
    cost: float | None = None
    """what its seconds cost so far; None: nobody gave prices"""
    per_hour: float | None = None
    """what the cluster costs for an hour, when it was last begun"""
    currency: str = ""
    submitted_by: str | None = None
    """name of the token that it was submitted with; None: on the store itself"""
    created_at: AwareDatetime
    updated_at: AwareDatetime


class LiveSearch(Record):
    """A search that a process works on, or waits with: what others on the same cluster have to know of it.

    It holds for as long as the search's lease does; what a killed process leaves behind counts no more.
    """

    search: str
    cluster: str
    """where it runs: `ClusterView.name`"""
    priority: int = 0
    workers: int = Field(default=1, ge=1)
    """places that each of its trials takes"""
    wants: int | None = Field(default=None, ge=0)
    """trials that it has a use for at once; None: as many as there is room for"""
    submitted_at: AwareDatetime
    begun_at: AwareDatetime | None = None
    """None: it waits for its turn"""
    share: int = 0
    """trials that it may run at once, as its process last worked out"""
    running: int = 0
    """trials that it runs, as its process last said"""


class ClusterView(Record):
    """What a cluster has, as the last process that looked saw it."""

    name: str
    """the host of its head: drivers everywhere on it agree on that"""
    nodes: tuple[dict[str, float], ...]
    """of each living node, its resources as Ray names them"""
    seen_at: AwareDatetime
