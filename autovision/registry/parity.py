"""How close a runtime's answers are to those of eager PyTorch in float32, on real images of the model's data set."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.distance import pdist

from autovision.dataset import catalog, manifest
from autovision.dataset.loader import load_pixels
from autovision.decisions import scores
from autovision.errors import InvalidInput
from autovision.image import VIEWS
from autovision.metrics import THRESHOLD
from autovision.model.compiled import Compiled
from autovision.model.inference import EagerModule
from autovision.model.network import Network
from autovision.model.predictor import Scorer, probabilities_of
from autovision.records.datasets import Split
from autovision.records.models import ModelVersion
from autovision.records.runtimes import Bound, Parity
from autovision.store.protocol import Store

_FIRST_TO_LAST = (Split.TEST, Split.VALIDATION, Split.TRAIN)
_LEAST = 8
"""images, if each of them is many views"""


@dataclass(frozen=True)
class Sample:
    """Real images to compare on."""

    dataset: str
    """`name@version`"""
    split: Split
    images: tuple[str, ...]
    """digests"""


@dataclass(frozen=True)
class Answers:
    """What a network says of a sample's images.

    Attributes:
        probabilities: (N, C) float64, calibrated.
        embeddings: (N, D) float32; None if they are not known.
    """

    probabilities: np.ndarray
    embeddings: np.ndarray | None


def sample(store: Store, model: ModelVersion, most: int) -> Sample:
    """Up to `most` images of the data set that the model was made on: of test, else of validation, else of train.

    A model that answers from many views of an image gets fewer images, so that the time is about the same.

    Raises:
        NotFound: the data set is gone.
        InvalidInput: it is empty.
    """
    views = len(VIEWS[str(model.lineage.config.get("test_time_augmentation", "none"))])
    number = max(min(_LEAST, most), most // views)
    version = catalog.get(store, model.lineage.dataset)
    rows = manifest.read(store, version)
    for split in _FIRST_TO_LAST:
        # In the order of their digests, which says nothing about what they show.
        if found := [row.image for row in rows if row.split is split]:
            return Sample(version.id, split, tuple(found[:number]))
    raise InvalidInput(f"data set {version.id} of model {model.id!r} has no images to compare runtimes on")


def pixels_of(store: Store, model: ModelVersion, sample: Sample, threads: int) -> np.ndarray:
    """uint8 (N, H, W, 3)"""
    return load_pixels(store, sample.images, model.preprocessing, threads=threads)


def eager(model: ModelVersion, network: Network, pixels: np.ndarray) -> Answers:
    """What is compared with: the network as it is, in PyTorch, in float32."""
    return answers(model, EagerModule(network), pixels)


def answers(model: ModelVersion, compiled: Compiled, pixels: np.ndarray) -> Answers:
    logits, embeddings = Scorer(compiled)(pixels)
    return Answers(probabilities_of(logits, model.temperature, multi_label=model.multi_label), embeddings)


def compare(model: ModelVersion, sample: Sample, reference: Answers, found: Answers, bound: Bound) -> Parity:
    """Both are of the sample's images, in their order."""
    difference = np.abs(reference.probabilities - found.probabilities).max()
    same = labels(model, reference.probabilities) == labels(model, found.probabilities)
    shift = None
    if reference.embeddings is not None and found.embeddings is not None:
        shift = _shift(reference.embeddings, found.embeddings)
    return Parity(
        dataset=sample.dataset,
        split=sample.split,
        images=len(sample.images),
        # Answers that are no numbers at all agree with nothing.
        max_difference=float(difference) if np.isfinite(difference) else 1.0,
        agreement=float(same.all(1).mean()) if np.isfinite(difference) else 0.0,
        embedding_shift=shift,
        bound=bound,
    )


def labels(model: ModelVersion, probabilities: np.ndarray) -> np.ndarray:
    """The model's answers, by its decision rule: (N, 1) the class, or with several labels (N, C) whether it is one."""
    decided = scores(model.decision, probabilities)
    if model.multi_label:
        return decided > THRESHOLD
    found: np.ndarray = decided.argmax(1, keepdims=True)
    return found


def _shift(reference: np.ndarray, found: np.ndarray) -> float | None:
    """Between the means, in medians of the distances between two images; None where all images are the same."""
    typical = float(np.median(pdist(reference))) if len(reference) > 1 else 0.0
    if typical == 0.0:
        return None
    shift = float(np.linalg.norm(found.mean(0) - reference.mean(0)) / typical)
    return shift if np.isfinite(shift) else 1e9
