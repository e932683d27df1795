"""What the store holds: frozen records, written as JSON, changed only by copy.

Each stage of the loop reads and writes these and nothing else, so that stages never meet each other:

    DatasetVersion -> SearchRequest -> SearchState, TrialResult -> ModelVersion -> Deployment
          ^                                                                            |
          +------ Decision <- DriftReport <- Capture, Label <--------------------------+

Times are UTC, durations are seconds (`_s`), sizes are bytes (`_bytes`), images are height by width in pixels.
"""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)


def now() -> datetime:
    """The time in UTC. Code that decides by time takes a clock instead, so that tests can set it."""
    return datetime.now(UTC)


def digest_of(value: Any) -> str:
    """SHA-256, in hex, of a JSON-able value in canonical form (sorted keys, no spaces)."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


class Record(BaseModel):
    """A frozen record. Unknown fields are refused, so that a misspelt one is never ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="null")

    def to_json(self) -> bytes:
        return self.model_dump_json(indent=1).encode()

    def with_(self, **changes: Any) -> Self:
        """A checked copy with some fields changed."""
        return type(self).model_validate({**self.model_dump(), **changes})


# ---------------------------------------------------------------------------------------------- data sets


class Split(StrEnum):
    """Which part of a data set version an image belongs to."""

    TRAIN = "train"
    """fitted on"""
    VALIDATION = "validation"
    """chosen on: pruning, selection, temperature"""
    TEST = "test"
    """opened once per model, and by the promotion gate"""


def _sorted(label: str | tuple[str, ...]) -> str | tuple[str, ...]:
    return label if isinstance(label, str) else tuple(sorted(set(label)))


Labels = Annotated[str | tuple[str, ...], AfterValidator(_sorted)]
"""What is said of an image: its class; or, where it may have any number of classes, all of them, sorted (also none)."""


def labels_of(label: Labels) -> tuple[str, ...]:
    """The classes that are said of an image."""
    return (label,) if isinstance(label, str) else label


def spoken(label: Labels) -> str:
    """For people to read."""
    if isinstance(label, str):
        return repr(label)
    return " and ".join(map(repr, label)) or "none of the classes"


class Labelling(Record):
    """A record with a field `label`: in JSON that is `labels`, a list, where it may be any number of classes."""

    if TYPE_CHECKING:
        label: Labels  # each record has it at its own place

    @property
    def labels(self) -> tuple[str, ...]:
        return labels_of(self.label)

    @model_validator(mode="before")
    @classmethod
    def _either(cls, data: Any) -> Any:
        if not isinstance(data, dict) or "labels" not in data:
            return data
        if "label" in data:
            raise ValueError("either label or labels, not both")
        if isinstance(data["labels"], str):
            raise ValueError("labels is a list; for exactly one label there is label")
        return {("label" if name == "labels" else name): value for name, value in data.items()}

    @model_serializer(mode="wrap")
    def _as_said(self, handler: SerializerFunctionWrapHandler, info: SerializationInfo) -> dict[str, Any]:
        fields: dict[str, Any] = handler(self)
        if isinstance(self.label, str) or info.mode != "json":
            return fields
        return {("labels" if name == "label" else name): value for name, value in fields.items()}


class ImportProblem(Record):
    """One input that was left out of a data set, or taken with a remark."""

    path: str
    kind: str
    """`unreadable`, `duplicate`, `conflicting_label`, `too_large`, `missing`, `empty_class`, …"""
    message: str


class DatasetVersion(Record):
    """An immutable version of a labelled data set. Its rows are in the Parquet table at `manifest_key`."""

    name: str
    version: int = Field(ge=1)
    digest: str
    """SHA-256 over the rows (image digest, label, split, confidence, group, metadata) in canonical order"""
    manifest_key: str
    classes: tuple[str, ...]
    """sorted; a model's outputs are in this order"""
    multi_label: bool = False
    """whether an image may have any number of the classes; otherwise it has exactly one"""
    positive_class: str | None
    """for two classes the one that F1, precision and recall speak of (the rarer one unless the user says); else None"""
    counts: dict[str, dict[str, int]]
    """split -> class -> images"""
    images: dict[str, int] = {}
    """split -> images; empty in older records, where each image has one class and so is in `counts` once"""
    n: int
    seed: int
    parent: int | None
    """the version that this one extends"""
    problems: tuple[ImportProblem, ...]
    """the first hundred; `problem_counts` counts them all"""
    problem_counts: dict[str, int]
    """kind -> number of inputs"""
    created_at: AwareDatetime

    @property
    def id(self) -> str:
        return f"{self.name}@{self.version}"


# ----------------------------------------------------------------------------------------------- searches

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
    "patience_s",
    "converged",
    "max_cost",
    "prices",
    "priority",
    "costs",
    "refit",
    "soup",
    "sampler",
    "objectives",
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
    """of one image at a time, by the runtime that serves, where the search runs; decoding and HTTP not included"""
    max_memory_mb: float | None = Field(default=None, gt=0)
    """10⁶ bytes that a process holds at most which serves the model"""
    max_size_mb: float | None = Field(default=None, gt=0)
    """10⁶ bytes of the model's file of weights"""
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
    priority: int = Field(default=0, ge=-10, le=10)
    """higher is begun earlier, and each step up doubles the share of a cluster that several searches share"""
    costs: Costs | None = None
    """of answers, for the metric `neg_mean_cost`"""
    refit: bool = True
    """train the winner again on train and validation together, if the budget allows it"""
    soup: bool = True
    """average the weights of the best trials where validation says that it helps"""

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
    budget_s: float | None = None
    """wall seconds that it may use in all, once it was extended; None: what the request says"""
    estimate: str | None = None
    """what the budget was expected to buy, before the first trial"""
    ended_early: str | None = None
    """why it ended before its budget did"""
    cost: float | None = None
    """what its seconds cost so far; None: nobody gave prices"""
    per_hour: float | None = None
    """what the cluster costs for an hour, when it was last begun"""
    currency: str = ""
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


class TrialState(StrEnum):
    """How a trial ended. All are terminal; a trial that is lost leaves no record and is run again."""

    COMPLETE = "complete"
    """ran to its last rung"""
    PRUNED = "pruned"
    """stopped by the scheduler for being worse than its peers"""
    STOPPED = "stopped"
    """cut short by the end of the budget; its value is that of its last rung"""
    FAILED = "failed"
    """raised an error, or its loss was not finite"""


class CurvePoint(Record):
    """What a trial reported at the end of one rung."""

    rung: int
    epoch: int
    seconds: float
    """since the trial began"""
    search_s: float
    """since the search began (spent seconds, over all attempts)"""
    train_loss: float
    metrics: dict[str, float]
    """on validation"""
    judged_epoch: int | None = None
    """after which the weights were as judged, where that is an earlier epoch: early stopping went back to it"""


class TrialResult(Record):
    """The immutable result of one trial: a line of the ledger."""

    search: str
    trial: str
    number: int
    state: TrialState
    config: dict[str, Any]
    """the resolved TrialConfig"""
    parameters: dict[str, Any]
    """the point of the search space that it came from"""
    origin: str
    """`default`, `sampled`, `ledger` (an earlier search's winner), `similar` (that of a data set which looks alike),
    `champion`, or `probe` (as the best head, with stages unfrozen)"""
    ladder: str = ""
    """which rung of the ladder it is on: `probe`, a head alone; `shallow` or `deep`, by the stages it unfreezes"""
    batch: str | None = None
    """the first of the heads that it was trained together with; None: alone"""
    curve: tuple[CurvePoint, ...] = ()
    value: float | None = None
    """the search's metric on validation at the best rung; None for a trial that never reached one"""
    metrics: dict[str, float] = {}
    objectives: dict[str, float] = {}
    """of each of the search's objectives beside the metric: what the model costs"""
    weights_key: str | None = None
    """trained tensors (head and unfrozen stages), safetensors; None when nothing was trained"""
    seconds: float = 0.0
    """of work; of a head in a batch, its share"""
    feature_s: float = 0.0
    """of `seconds`: waiting for or computing frozen-prefix features"""
    error: str | None = None
    notes: tuple[str, ...] = ()
    seed: int = 0
    created_at: AwareDatetime


# ------------------------------------------------------------------------------------------------- models


class ImportedWeights(Record):
    """Pretrained weights that a user brought in, for one backbone; the record reveals their file."""

    name: str
    """`TrialConfig.weights` speaks of them as `store:<name>`"""
    backbone: str
    """the timm model that they fit"""
    digest: str
    """SHA-256 of the safetensors file, in hex"""
    license: str
    """SPDX identifier, or `unknown`"""
    source: str
    """where they came from, in words"""
    size_bytes: int
    created_at: AwareDatetime


class Interval(Record):
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


class Evaluation(Record):
    """How a model does on a set of labelled images."""

    dataset: str
    """`name@version`"""
    split: Split
    where: dict[str, str] = {}
    """metadata that the images have in common, e.g. {"cell_type": "poly"}; empty: all of the split"""
    n: int
    accuracy: Interval
    """share of images whose class, or whose every label, is answered right"""
    balanced_accuracy: Interval
    f1: Interval
    """of the positive class for two classes, macro-averaged otherwise"""
    auroc: Interval | None
    """two classes: of the positive class; more, or several labels: macro one-against-rest; None where a class is
    absent"""
    average_precision: float | None = None
    """like `auroc`; the mean average precision where it is macro-averaged"""
    log_loss: float
    ece: float
    """expected calibration error, 15 equal-width bins"""
    majority_accuracy: float
    """accuracy of always answering this set's most frequent class, or set of labels"""
    per_class_recall: dict[str, float]
    confusion: tuple[tuple[int, ...], ...]
    """rows: true class, columns: predicted class, in the order of the model's classes; empty for several labels"""
    bootstrap: dict[str, Interval] = {}
    """every figure by its metric's name (`log_loss` and `ece` are the lower the better), and the metric that the search
    was ranked by, with percentiles of resampled images; empty in older records"""
    resamples: int = 0
    """of `bootstrap`"""


CropMode = Literal["center", "squash"]
"""the shorter side is scaled and the centre cropped; both sides are scaled, whatever their ratio"""


class Preprocessing(Record):
    """How decoded RGB pixels become the model's input; the same in training and in serving."""

    height: int
    width: int
    crop_pct: float
    crop_mode: CropMode = "center"
    interpolation: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class DecisionRule(Record):
    """How calibrated probabilities become an answer; `autovision.decisions` applies it.

    The default is the most probable class, or, of any number of classes, those above one half.
    """

    kind: Literal["default", "threshold", "offsets", "costs", "thresholds"] = "default"
    """`threshold`: of two classes the one of `column` where its probability is above the value; `offsets`: the largest
    log-probability plus value; `costs`: the least expected cost; `thresholds`: each label above its value"""
    values: tuple[float, ...] = ()
    """one of a `threshold`; one for each class of `offsets` and `thresholds`"""
    column: int | None = None
    """the class of a `threshold`"""
    costs: tuple[tuple[float, ...], ...] = ()
    """rows: true class, columns: answered class"""
    why: str = ""
    """what spoke for it, or against another one, on validation"""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        odd = {
            "threshold": len(self.values) != 1 or self.column not in (0, 1),
            "offsets": len(self.values) < 2,
            "thresholds": not self.values,
            "costs": not self.costs or any(len(row) != len(self.costs) for row in self.costs),
        }
        if odd.get(self.kind, False):
            raise ValueError(f"a decision rule of kind {self.kind!r} lacks its values")
        if self.kind.startswith("threshold") and not all(0 < value < 1 for value in self.values):
            raise ValueError(f"thresholds lie between 0 and 1, not {self.values}")
        return self


class Refit(Record):
    """A second training of what was chosen, on train and validation together."""

    images: int
    """of both splits"""
    epochs: dict[str, int]
    """trial -> epochs, those after which it was best on validation"""
    before_key: str
    """weights of before, which have not seen validation: what starts from this model must start from these"""


class FinishRecord(Record):
    """What the finish of a search made of its ledger: written once, so that it is the same however often it runs."""

    search: str
    ledger: str
    """digest of the trials, their values and weights"""
    trials: tuple[str, ...]
    """the best trial; or, the best first, those whose weights are averaged"""
    chosen_key: str
    """weights as validation chose them: temperature and decision rule are fitted to these"""
    final_key: str
    """weights of the model: those, or trained again"""
    refit: Refit | None = None
    notes: tuple[str, ...] = ()
    created_at: AwareDatetime


class Lineage(Record):
    """Everything a model version came from."""

    search: str
    trial: str
    dataset: str
    """`name@version`"""
    dataset_digest: str
    backbone: str
    backbone_weights_digest: str
    backbone_weights_source: str
    backbone_weights_license: str
    space_fingerprint: str
    config: dict[str, Any]
    """the resolved TrialConfig"""
    seed: int
    code_version: str
    """package version, and a digest of its source"""
    packages: dict[str, str]
    parents: tuple[str, ...]
    """model versions that training started from or was compared with"""
    soup: tuple[str, ...] = ()
    """trials whose weights are averaged (Wortsman et al. 2022), `trial` first; empty: those of `trial` alone"""
    refit: Refit | None = None
    """None: the weights are those that were chosen on validation"""
    notes: tuple[str, ...] = ()
    """how the finish went about soup and refit"""


class ModelVersion(Record):
    """An immutable model: the record is written last and reveals the files beside it."""

    id: str
    dataset: str
    """name of the data set, without version"""
    classes: tuple[str, ...]
    multi_label: bool = False
    """whether it answers any number of its classes; otherwise it answers exactly one"""
    positive_class: str | None
    preprocessing: Preprocessing
    temperature: float
    """logits are divided by it (Guo et al. 2017), fitted on validation"""
    decision: DecisionRule = DecisionRule()
    metric: str = "accuracy"
    """what its search was ranked by, and its decision rule was chosen for"""
    costs: Costs | None = None
    """of answers, for the metric `neg_mean_cost`"""
    precision: str
    """numeric precision that it was evaluated and is served in: `f32` or `bf16`"""
    metrics: dict[str, Evaluation]
    """`test`, and one per declared subgroup"""
    files: dict[str, str]
    """file name -> SHA-256 in hex"""
    size_bytes: int
    parameters: int
    lineage: Lineage
    created_at: AwareDatetime


# ------------------------------------------------------------------------------- deployments and the loop


class RetrainingPolicy(Record):
    """When captured data re-triggers a search, and what that search may spend."""

    window: int = Field(default=100, ge=20)
    """requests per drift window"""
    alpha: float = Field(default=0.001, gt=0, lt=1)
    """probability of a false alarm of one window"""
    min_labels: int = Field(default=50, ge=1)
    """labelled captures that a re-search needs"""
    volume_labels: int | None = Field(default=1000, ge=1)
    """this many new labels trigger a re-search without any alarm; None: never"""
    cooldown_s: float = Field(default=0.0, ge=0)
    """least time between two re-searches"""
    budget_s: float = Field(default=120.0, gt=0)
    """wall seconds of each re-search"""
    max_trials: int | None = Field(default=None, ge=1)
    """of each re-search; None: as many as its budget allows"""
    subgroup: str | None = None
    """metadata column whose groups the promotion gate protects one by one"""


class Deployment(Record):
    """What a deployment should serve: a mutable record, changed by compare-and-swap only."""

    name: str
    dataset: str
    """data set that its labels extend"""
    model: str | None
    """the champion; None: nothing promoted yet"""
    previous: tuple[str, ...] = ()
    """earlier champions, the latest last"""
    space: dict[str, Any]
    """search space of its re-searches, in JSON form"""
    policy: RetrainingPolicy = RetrainingPolicy()
    revision: int = 0
    created_at: AwareDatetime
    updated_at: AwareDatetime


class Capture(Labelling):
    """One answered request. The image itself is in the store under its digest."""

    request_id: str
    deployment: str
    model: str
    received_at: AwareDatetime
    latency_ms: float
    image: str
    """SHA-256 of the request's bytes"""
    label: Labels
    probabilities: dict[str, float]
    embedding: tuple[float, ...]
    metadata: dict[str, str] = {}
    """what the caller said of the image (`X-Autovision-Meta-*` headers)"""


class Label(Labelling):
    """A person's word on a captured request."""

    request_id: str
    label: Labels
    annotator: str = "unknown"
    confidence: float = Field(default=1.0, ge=0, le=1)
    received_at: AwareDatetime


class DriftReport(Record):
    """What the monitor saw in one window of captured requests."""

    id: str
    deployment: str
    model: str
    n: int
    """requests in the window"""
    reference_n: int
    first_request: str
    last_request: str
    window_start: AwareDatetime
    window_end: AwareDatetime
    score: float
    """squared maximum mean discrepancy of the embeddings, unbiased"""
    threshold: float
    """an alarm at or above; set so that a window without drift alarms with probability `alpha`"""
    p_value: float
    alpha: float
    alarm: bool
    details: dict[str, float] = {}
    """further figures, e.g. `mean_confidence`, `reference_confidence`, `prediction_shift`"""
    created_at: AwareDatetime


class DecisionKind(StrEnum):
    """What was decided about."""

    PROMOTE = "promote"
    ROLLBACK = "rollback"
    RETRAIN = "retrain"


class Decision(Record):
    """A decision with the numbers behind it, so that `why` can always be answered."""

    id: str
    kind: DecisionKind
    deployment: str
    accepted: bool
    """whether it led to an act"""
    what: str
    """one line: what was decided"""
    why: str
    """the reasons, with numbers"""
    subject: str | None = None
    """the model or search that it is about"""
    numbers: dict[str, Any] = {}
    created_at: AwareDatetime


class Verdict(Record):
    """What a pure policy decided; storing it as a `Decision` and acting on it are for others."""

    accepted: bool
    what: str
    """one line: what was decided"""
    why: str
    """the reasons, with numbers"""
    numbers: dict[str, Any] = {}
    """JSON-able"""


class Lease(Record):
    """Who alone may act, until when. A holder that outlives its lease must stop acting."""

    name: str
    holder: str
    token: int
    """grows by one with every new holder"""
    acquisition: str = ""
    """random, one for each time it was acquired: tokens begin anew where the record was deleted, this does not"""
    expires_at: AwareDatetime
