"""What serving needs of a loaded model, so that it depends on no engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from autovision.errors import InvalidImage
from autovision.records.datasets import Labels
from autovision.records.models import ModelVersion
from autovision.store.protocol import Store

Pixels = npt.NDArray[np.uint8]
Input = bytes | Pixels
"""an encoded image, or (H, W, 3) pixels that are preprocessed already"""


class Prediction(Protocol):
    """One image's answer."""

    @property
    def label(self) -> Labels: ...

    @property
    def probabilities(self) -> Mapping[str, float]:
        """class -> probability, in the model's order of classes"""

    @property
    def embedding(self) -> np.ndarray[Any, Any]:
        """(D,) float32: the head's input"""


class Predictor(Protocol):
    """A model that is loaded, compiled and warm."""

    @property
    def model(self) -> ModelVersion: ...

    def predict(self, images: Sequence[Input]) -> Sequence[Prediction | InvalidImage]:
        """One result per image, in order; an image that cannot be decoded, and pixels of another size than the
        model's, give their error. Thread-safe."""


class LanePredictor(Predictor, Protocol):
    """One that may answer several calls at once, each on a thread of its own."""

    @property
    def lanes(self) -> int:
        """calls at once that all processors are busy with; 1: a batch on all of them is quicker"""

    @property
    def few(self) -> int:
        """images that a call takes at most: more would hardly be quicker, and those that are done would wait"""

    @property
    def most(self) -> int:
        """images that a call takes where so many wait for each lane: under such a load all wait for what each takes"""

    def predict_in_lane(
        self, images: Sequence[Input], widen: Callable[[], bool]
    ) -> Sequence[Prediction | InvalidImage]:
        """Like `predict`, on this thread.

        Args:
            widen: asked once the images are decoded, where all threads would be quicker: whether they may be used.
        """


LoadPredictor = Callable[[Store, str], Predictor]
"""Loads a model of the store by its id; takes seconds."""


class Served(NamedTuple):
    """A predictor that answers, and since when."""

    predictor: Predictor
    since: datetime
