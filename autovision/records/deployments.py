"""Deployments, what they answered, what people and the monitor said of it, and what was decided."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Literal

from pydantic import AwareDatetime, Field, model_validator

from autovision.records.base import Record
from autovision.records.datasets import Labelling, Labels
from autovision.records.gates import GatePolicy
from autovision.records.rollouts import Rollout, RolloutPolicy
from autovision.records.triggers import TriggerPolicy

EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
"""at which anything can have been said: dates before are slips, and those of year 1 fit in no other time zone"""


class RetrainingPolicy(TriggerPolicy):
    """When captured data re-triggers a search, and what that search may spend."""

    window: int = Field(default=100, ge=20)
    """requests per drift window"""
    windows_per_false_alarm: float = Field(default=1000.0, ge=10, le=100_000)
    """without drift, of so many windows one raises an alarm on average, or fewer: all detectors together"""
    min_labels: int = Field(default=25, ge=1)
    """labelled captures that a re-search needs, after an alarm or of volume: what few cannot show, later ones may"""
    volume_share: float | None = Field(default=0.05, gt=0, le=10, allow_inf_nan=False)
    """new labels that trigger a re-search without any alarm, in shares of the images that the last search learnt from,
    and `min_labels` at least; None: none do"""
    volume_labels: int | None = Field(default=None, ge=1)
    """the same as a number; None: none do. Where a policy is made with this and without a share, no share triggers one;
    of one that is changed, the share stays"""
    cooldown_s: float = Field(default=0.0, ge=0)
    """least time between the beginnings of two re-searches; after one that failed it is `backoff_s`"""
    budget_s: float = Field(default=120.0, gt=0)
    """wall seconds of each re-search"""
    max_trials: int | None = Field(default=None, ge=1)
    """of each re-search; None: as many as its budget allows"""
    subgroup: str | None = None
    """metadata column whose groups the promotion gate protects one by one"""
    adapt: bool = False
    """answer each alarm without labels, too, where an estimate says that it helps: see `retraining.adaptation`"""

    @model_validator(mode="before")
    @classmethod
    def _of_before(cls, data: Any) -> Any:
        """Older records know no share, and have `alpha`, the probability of a false alarm of one window."""
        if not isinstance(data, dict):
            return data
        if "volume_labels" in data and "volume_share" not in data:
            # They name all their fields, and mean what they meant: a number, or never.
            data = {**data, "volume_share": None}
        if "alpha" not in data:
            return data
        rest = {name: value for name, value in data.items() if name != "alpha"}
        alpha = data["alpha"]
        if not isinstance(alpha, int | float) or not 0 < alpha < 1:
            raise ValueError("alpha is a probability; give windows_per_false_alarm instead, such as 1000")
        return {"windows_per_false_alarm": min(max(1 / alpha, 10.0), 100_000.0), **rest}


class DecisionKind(StrEnum):
    """What was decided about."""

    PROMOTE = "promote"
    """whether a challenger may begin to take over"""
    ADVANCE = "advance"
    """that its rollout goes on to the next step, or that it is champion"""
    ROLLBACK = "rollback"
    RETRAIN = "retrain"
    ADAPT = "adapt"
    """whether the champion is put right without labels"""


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


class CapturePolicy(Record):
    """What is kept of the requests that a deployment answers."""

    share: float = Field(default=1.0, ge=0, le=1)
    """of the requests that are kept, chosen at random"""
    pixels: bool = True
    """whether with their images; without, drift is watched by embeddings, and nothing can be learnt from labels"""
    keep_days: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """that a request is kept; None: for good. Whatever is labelled is kept for good in any case"""
    keep_requests: int | None = Field(default=None, ge=1)
    """that are kept, the latest; None: all"""
    keep_image_days: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """that a request's image is kept; None: as long as the request"""
    keep_image_gb: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """10⁹ bytes of images that are kept, the latest; None: any"""

    @property
    def forgets(self) -> bool:
        """Whether anything is ever deleted."""
        limits = self.keep_days, self.keep_requests, self.keep_image_days, self.keep_image_gb
        return any(limit is not None for limit in limits)


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
    capture_policy: CapturePolicy = CapturePolicy()
    gate_policy: GatePolicy = GatePolicy()
    rollout_policy: RolloutPolicy = RolloutPolicy()
    rollout: Rollout | None = None
    """the challenger that is on its way to be champion"""
    decided: Decision | None = None
    """the latest decision that changed this record, as part of the change: neither is ever without the other"""
    revision: int = 0
    created_at: AwareDatetime
    updated_at: AwareDatetime


class ShadowAnswer(Labelling):
    """What a challenger would have answered."""

    model: str
    label: Labels
    probabilities: dict[str, float]


class Capture(Labelling):
    """One answered request. Its image is in the store (`autovision.store.captures.read_image`), if `pixels` says so
    and the deployment's policy still keeps it."""

    request_id: str
    deployment: str
    model: str
    received_at: AwareDatetime
    latency_ms: float
    image: str
    """SHA-256 of the request's bytes"""
    image_bytes: int | None = None
    """size of these; None in older captures, whose images are among those of data sets"""
    pixels: bool = True
    """whether the image was kept"""
    label: Labels
    probabilities: dict[str, float]
    embedding: tuple[float, ...]
    metadata: dict[str, str] = {}
    """what the caller said of the image (`X-Autovision-Meta-*` headers)"""
    shadow: ShadowAnswer | None = None
    """of a challenger that was shown the same image; None: there was none, or no room for it"""


class Label(Labelling):
    """A person's word on a captured request, or on an image of a data set, whose digest is the `request_id` then."""

    request_id: str
    label: Labels
    annotator: str = "unknown"
    confidence: float = Field(default=1.0, ge=0, le=1)
    review: bool = False
    """whether it was given in a review, knowing what others said: it then stands for all words that were not"""
    received_at: AwareDatetime
    said_at: AwareDatetime | None = Field(default=None, exclude_if=lambda at: at is None)
    """when the annotator said so, if whoever delivered it knows that; None: when it was received"""

    @property
    def when(self) -> datetime:
        """From when on it is the annotator's word. Nothing was said after it was received, whatever a clock says."""
        return self.received_at if self.said_at is None else min(self.said_at, self.received_at)


class Moved(Record):
    """What a detector found moved, in comparison with the reference."""

    kind: Literal["class", "figure", "subgroup"]
    """the rate of a class; a figure of the images or answers; the images of one value of a metadata column"""
    name: str
    """such as `defective`, `sharpness` or `camera=2`"""
    window: float
    """mean of the window; of a subgroup, how unlike its images are: the mean share of reference images that are less
    so, one half without drift"""
    reference: float
    """the same of the reference"""
    n: int
    """images of the window that it speaks of"""
    p_value: float
    """of a difference like this without drift; allows for all that were looked at together with it"""


class DetectorVerdict(Record):
    """What one detector says of the latest windows."""

    name: str
    """`input`, `quality`, `prediction`, `confidence` or `accuracy`"""
    alarm: bool
    score: float
    threshold: float
    """an alarm at or above; where few permutations settled the verdict, an estimate from these"""
    p_value: float
    """of a score like this without drift"""
    alpha: float
    """an alarm at this p-value or less: the detector's share of the rate of false alarms"""
    windows: int = 1
    """the latest so many windows, taken together"""
    n: int
    """images, or labels, of these"""
    reference_n: int
    """that they were compared with"""
    moved: tuple[Moved, ...] = ()
    """the surest first; looked for where there is an alarm"""


class UnlikeImage(Record):
    """An image of the window that is unlike the reference."""

    request_id: str
    image: str
    """SHA-256 of the request's bytes"""
    unlikeness: float
    """share of reference images that are less unlike the reference (by the witness function of the input detector)"""
    why: str = ""


class AccuracyEstimate(Record):
    """The accuracy of a window, estimated without labels: right only as far as confidence still means what it meant.

    `low` and `high` speak of chance alone (95 %, bootstrap of held-out images and window). They do not hold where the
    model is sure of what it has never seen: an alarm of the input detector says that it may be so.
    """

    value: float
    """by average thresholded confidence (Garg et al. 2022)"""
    low: float
    high: float
    by_difference: float
    """by the difference of mean confidences (Guillory et al. 2021)"""
    tried: dict[str, float] = {}
    """kind of corruption -> estimate less accuracy on held-out images that were corrupted so: how far such an estimate
    can be off; empty where the promotion gates had none made"""
    held_out: float
    """accuracy on the held-out images"""
    n: int
    held_out_n: int


class LabelledAccuracy(Record):
    """The accuracy of the labelled requests of a model. Who chose what to label may have chosen what is hard."""

    value: float
    low: float
    """95 %, Clopper and Pearson 1934"""
    high: float
    n: int
    expected: float
    """what images of the same confidences come to in the held-out set"""
    held_out: float
    reviewed: int
    """of `n`: labels of reviews, which ask of what the model is unsure"""
    confidence: float
    """mean confidence of the labelled requests"""
    confidence_of_all: float
    """mean confidence of all requests of the windows: higher where labels are of what is hard"""


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
    """of any detector"""
    details: dict[str, float] = {}
    """further figures, e.g. `mean_confidence`, `reference_confidence`, `prediction_shift`"""
    created_at: AwareDatetime
    detectors: tuple[DetectorVerdict, ...] = ()
    """what each detector says, the shortest window first; `score`, `threshold`, `p_value` and `alpha` are those of the
    input detector on this window alone; none in older reports, which had no other"""
    windows_per_false_alarm: float | None = None
    """the rate that the verdicts keep together; None in older reports: one in 1 / `alpha`"""
    unlike: tuple[UnlikeImage, ...] = ()
    """the images that are the most unlike the reference, the worst first"""
    typical: tuple[str, ...] = ()
    """images of the data set that are typical of the reference, by digest"""
    estimate: AccuracyEstimate | None = None
    accuracy: LabelledAccuracy | None = None
    """None: no label came since the last report"""
    notes: tuple[str, ...] = ()
    """what could not be looked at, and why"""
    rows: str | None = None
    """digest of what later windows are compared with"""

    @property
    def alarming(self) -> tuple[DetectorVerdict, ...]:
        """The verdicts that raise the alarm, the surest first."""
        return tuple(
            sorted(
                (each for each in self.detectors if each.alarm), key=lambda each: each.p_value / each.alpha
            )
        )
