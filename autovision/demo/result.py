"""Everything that the demo's report shows, as frozen records that the story fills."""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Any, Literal

from pydantic import AwareDatetime, ConfigDict, Field, field_validator

from autovision.errors import InvalidImage
from autovision.records.base import Record
from autovision.records.deployments import Decision, DriftReport
from autovision.records.models import Evaluation, Interval, ModelVersion
from autovision.report.search_view import SearchView

CELL_TYPES = ("mono", "poly")
"""the two kinds of cell, the known one first"""

MEASURES = ("accuracy", "balanced_accuracy", "f1")
"""the fields of an `Evaluation` that the report compares"""

CellType = Literal["mono", "poly"]


class Stage(Record):
    """One stage of the story, in order."""

    name: str
    """short, lower case: the key in the JSON form, e.g. `first search`"""
    began_s: float = Field(ge=0)
    """since the story began"""
    seconds: float = Field(ge=0)
    detail: str = ""
    """one line: what came out of it"""


class Part(Record):
    """How many cells one part of the data holds, and what they were used for."""

    name: str
    """short, lower case: the key in the JSON form, e.g. `train` or `held-out poly`"""
    n: int = Field(ge=0)
    defective: int | None = Field(default=None, ge=0)
    """how many of them are defective; None: not known"""
    use: str = ""
    """e.g. `fitted on by both models`, `held out: never trained on`"""


class Side(Record):
    """One of the two models, and how it does on the cells that were held out."""

    model: ModelVersion
    mono: Evaluation
    poly: Evaluation

    def on(self, cell_type: str) -> Evaluation:
        return self.poly if cell_type == "poly" else self.mono


class DriftWindow(Record):
    """What the monitor saw in one window of requests that all carried one type of cell."""

    cell_type: CellType
    report: DriftReport


class Requests(Record):
    """The requests that the demo sent to the served model."""

    sent: int = Field(ge=0)
    failed: int = Field(ge=0)
    """got no answer, or an error"""
    during_promotion: int | None = Field(default=None, ge=0)
    """of `sent`: sent while one model replaced the other"""
    latency_p50_ms: float | None = None
    latency_p95_ms: float | None = None


class Outcomes(Record):
    """The two models' answers to the same held-out cells, counted in pairs."""

    both_right: int = Field(ge=0)
    fixed: int = Field(ge=0)
    """wrong before, right after"""
    broken: int = Field(ge=0)
    """right before, wrong after"""
    both_wrong: int = Field(ge=0)

    @property
    def n(self) -> int:
        return self.both_right + self.fixed + self.broken + self.both_wrong


class Prediction(Record):
    """An answer, and the probability that the model gave it."""

    label: str
    probability: float


class Outcome(StrEnum):
    """What the new model did to one cell's answer."""

    FIXED = "fixed"
    BROKEN = "broken"
    BOTH_RIGHT = "both right"
    BOTH_WRONG = "both wrong"


class Example(Record):
    """A held-out cell with both models' answers."""

    # Images travel in JSON as base64; pydantic's default, UTF-8, cannot carry them.
    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")

    image: bytes = Field(repr=False)
    """PNG or JPEG"""
    cell_type: CellType
    truth: str
    before: Prediction
    after: Prediction

    @field_validator("image")
    @classmethod
    def _known_format(cls, image: bytes) -> bytes:
        media_type_of(image)
        return image

    @property
    def outcome(self) -> Outcome:
        match (self.before.label == self.truth, self.after.label == self.truth):
            case (False, True):
                return Outcome.FIXED
            case (True, False):
                return Outcome.BROKEN
            case (True, True):
                return Outcome.BOTH_RIGHT
            case _:
                return Outcome.BOTH_WRONG


class DemoResult(Record):
    """The whole story in numbers."""

    seed: int
    budget_s: float
    """of each search"""
    store: str
    """URI of the store that holds everything"""
    started_at: AwareDatetime
    stages: tuple[Stage, ...]
    parts: tuple[Part, ...]
    searches: tuple[SearchView, ...]
    """the first, and the re-search if drift led to one"""
    before: Side
    """the model that served until the re-search"""
    after: Side
    """the model that serves at the end; the same as `before` if no challenger was promoted"""
    outcomes: dict[CellType, Outcomes] = Field(default_factory=dict)
    """where known, they make the difference between the models a paired one"""
    drift: tuple[DriftWindow, ...]
    decisions: tuple[Decision, ...]
    requests: Requests
    examples: tuple[Example, ...] = ()
    image_credit: str = ""
    """whose the images are and under which licence"""

    @property
    def total_s(self) -> float:
        """Wall seconds of the whole story."""
        return max((stage.began_s + stage.seconds for stage in self.stages), default=0.0)

    @property
    def replaced(self) -> bool:
        """Whether another model serves at the end."""
        return self.before.model.id != self.after.model.id

    def windows(self, cell_type: str) -> tuple[DriftReport, ...]:
        return tuple(window.report for window in self.drift if window.cell_type == cell_type)

    def to_demo_json(self) -> dict[str, Any]:
        """The report for machines. Figures that are not finite become null."""
        plain = {
            "seed": self.seed,
            "budget_s": self.budget_s,
            "stages": _seconds_by_stage(self.stages),
            "before": _side(self.before),
            "after": _side(self.after),
            "drift": {cell_type: _drift(self.windows(cell_type)) for cell_type in CELL_TYPES},
            "requests": self.requests.model_dump(mode="json"),
            "decisions": [
                {"what": each.what, "why": each.why, "kind": each.kind.value, "accepted": each.accepted}
                for each in self.decisions
            ],
            "trials": [len(self.searches[i].trials) if i < len(self.searches) else 0 for i in range(2)],
            "total_s": self.total_s,
            "store": self.store,
            "searches": [each.state.search for each in self.searches],
            "counts": {part.name: part.n for part in self.parts},
            "outcomes": {cell_type: each.model_dump() for cell_type, each in self.outcomes.items()},
        }
        finite = _finite(plain)
        assert isinstance(finite, dict)
        return finite


def media_type_of(image: bytes) -> str:
    """`image/png` or `image/jpeg`, by the first bytes. Raises `InvalidImage` for anything else."""
    if image.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if image.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    raise InvalidImage(
        f"an example of {len(image)} bytes that begin with {image[:4]!r} is neither PNG nor JPEG; "
        "encode it as PNG before it goes into the report"
    )


def _seconds_by_stage(stages: tuple[Stage, ...]) -> dict[str, float]:
    """Stages of the same name add up, so that no second gets lost."""
    seconds: dict[str, float] = {}
    for stage in stages:
        seconds[stage.name] = seconds.get(stage.name, 0.0) + stage.seconds
    return seconds


def _side(side: Side) -> dict[str, Any]:
    return {"model": side.model.id, **{name: _evaluation(side.on(name)) for name in CELL_TYPES}}


def _evaluation(evaluation: Evaluation) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    for measure in MEASURES:
        interval: Interval = getattr(evaluation, measure)
        figures[measure] = interval.value
        figures[f"{measure}_interval"] = [interval.low, interval.high]
    return {**figures, "n": evaluation.n, "majority_accuracy": evaluation.majority_accuracy}


def _drift(reports: tuple[DriftReport, ...]) -> dict[str, Any]:
    """The window nearest to its threshold, or furthest beyond it, speaks for all of its cell type."""
    worst = max(reports, key=lambda report: report.score - report.threshold, default=None)
    return {
        "alarm": any(report.alarm for report in reports),
        "score": worst.score if worst else None,
        "threshold": worst.threshold if worst else None,
        "windows": len(reports),
        "alarms": sum(report.alarm for report in reports),
    }


def _finite(value: Any) -> Any:
    match value:
        case float():
            return value if math.isfinite(value) else None
        case dict():
            return {name: _finite(each) for name, each in value.items()}
        case list():
            return [_finite(each) for each in value]
        case _:
            return value
