"""Data sets, and what is said of an image."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import (
    AfterValidator,
    AwareDatetime,
    Field,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from autovision.records.base import Record


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
    """`unreadable`, `duplicate`, `conflicting_label`, `too_large`, `missing`, `outside`, `empty_class`, …;
    `near_duplicate` is a remark, `straddling_duplicate` was left out, `alike_by_nature` tells that few bits may
    differ"""
    message: str


class Correction(Record):
    """A label of a data set that a review changed, or confirmed."""

    image: str
    """SHA-256 of its bytes"""
    source: str
    """where the image came from"""
    was: Labels
    label: Labels
    confidence: float
    by: str
    at: AwareDatetime
    """when they said so"""


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
    corrections: tuple[Correction, ...] = ()
    """what reviews changed since the version that this one extends, by digest"""
    hash_bits: int | None = None
    """up to so many different bits the perceptual hashes of near-duplicates had; None in older records"""
    left_out: tuple[str, ...] = ()
    """digests of images, also of those before, that would have straddled splits; sorted"""
    created_at: AwareDatetime

    @property
    def id(self) -> str:
        return f"{self.name}@{self.version}"
