"""What is kept of a window to compare later ones with: images as rows of figures, without their pixels."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from autovision.errors import CorruptObject
from autovision.monitoring.detectors.labelled import Answers
from autovision.monitoring.detectors.permutation import Floats
from autovision.records.datasets import labels_of
from autovision.records.deployments import Capture


@dataclass(frozen=True)
class Rows:
    """Images that a model was shown. Each part speaks of those of which it is known.

    Attributes:
        embedded: (m, P) projected embeddings.
        said: (k, C) zeros and ones: the answers.
        probabilities: (k, C)
        confidence: (k,)
        figures: (q, figures of `quality`), NaN of what broken images do not show.
        right: (l,) zeros and ones: whether labelled answers are right.
        sure: (l,) the confidences of these.
        reviewed: (l,) zeros and ones: whether a review asked for the label.
    """

    embedded: Floats
    said: Floats
    probabilities: Floats
    confidence: Floats
    figures: Floats
    right: Floats
    sure: Floats
    reviewed: Floats

    @property
    def answers(self) -> Answers:
        return Answers(self.right > 0, self.sure, self.reviewed > 0)

    def to_bytes(self) -> bytes:
        """As a safetensors file of 32-bit floats."""
        return bytes(
            save({f.name: np.ascontiguousarray(getattr(self, f.name), np.float32) for f in fields(self)})
        )

    def rounded(self) -> Rows:
        """As it is read back."""
        return Rows.from_bytes("these rows", self.to_bytes())

    @classmethod
    def from_bytes(cls, key: str, data: bytes) -> Rows:
        """Raises `CorruptObject`."""
        try:
            found = load(data)
            return cls(**{f.name: found[f.name].astype(np.float64) for f in fields(cls)})
        except (SafetensorError, KeyError, ValueError) as error:
            raise CorruptObject(f"the rows of a window at {key!r} cannot be read: {error}") from error

    @classmethod
    def together(cls, parts: Sequence[Rows]) -> Rows:
        """All rows of several, in order."""
        return cls(**{f.name: np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(cls)})


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def answers_of(captures: Sequence[Capture], classes: Sequence[str]) -> tuple[Floats, Floats, Floats]:
    """(m, C) answers, (m, C) probabilities, (m,) confidences; of what a model without a class said of it, 0."""
    said = np.array([[float(name in labels_of(each.label)) for name in classes] for each in captures])
    probabilities = np.array([[each.probabilities.get(name, 0.0) for name in classes] for each in captures])
    several = any(not isinstance(each.label, str) for each in captures)
    shape = len(captures), len(classes)
    p = probabilities.reshape(shape)
    return said.reshape(shape), p, confidence_of(p, multi_label=several)


def confidence_of(probabilities: Floats, *, multi_label: bool) -> Floats:
    """(N,) that in the likeliest class; of any number of classes, the mean of that in each one's being there or not."""
    if not len(probabilities):
        return np.zeros(0)
    each = np.maximum(probabilities, 1 - probabilities).mean(1) if multi_label else probabilities.max(1)
    return np.asarray(each, np.float64)


def labelled(triples: Iterable[tuple[bool, float, bool]]) -> tuple[Floats, Floats, Floats]:
    """right, sure and reviewed of `Rows`."""
    found = np.array(list(triples), np.float64).reshape(-1, 3)
    return found[:, 0], found[:, 1], found[:, 2]
