"""From image bytes to answers: the one path for evaluation, `predict` and serving.

Decoding, preprocessing, temperature and decision rule are the same everywhere. The network runs on the runtime and in
the precision that the model was evaluated with, unless another runtime is named; a server may name one that is faster
and was found to agree (`autovision.registry.runtimes`), whose answers then differ by what was measured there.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np

from autovision import image
from autovision.decisions import scores
from autovision.errors import InvalidImage
from autovision.metrics import THRESHOLD
from autovision.model.compiled import Compiled, Precision, default_threads
from autovision.model.version import read_version
from autovision.records.datasets import Labels
from autovision.records.models import ModelVersion
from autovision.records.runtimes import Lanes
from autovision.store.protocol import Store

# PyTorch is imported by those who build a network: answering with a compiled one does without.
if TYPE_CHECKING:
    from autovision.model.network import Network

MAX_BATCH = 32

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prediction:
    """A model's answer for one image."""

    label: Labels
    """by the model's decision rule: the default is the most probable class, or, of any number, those above one half"""
    probabilities: dict[str, float]
    """class -> probability, in the order of the model's classes; that of exactly one class sums to 1"""
    embedding: np.ndarray
    """(D,) float32: the head's input"""


def softmax(logits: np.ndarray) -> np.ndarray:
    """(N, C) logits to probabilities, in float64."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    return shifted / shifted.sum(1, keepdims=True)  # type: ignore[no-any-return]


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """(N, C) logits to the probability of each class by itself, in float64."""
    return np.exp(-np.logaddexp(0, -logits.astype(np.float64)))


def probabilities_of(logits: np.ndarray, temperature: float, *, multi_label: bool) -> np.ndarray:
    """(N, C) calibrated probabilities: of exactly one class being right, or of each class by itself."""
    return (sigmoid if multi_label else softmax)(logits / temperature)


class Scorer:
    """A compiled network over preprocessed pixels."""

    def __init__(self, compiled: Compiled) -> None:
        self._compiled = compiled
        self.runtime = compiled.runtime

    @classmethod
    def as_evaluated(
        cls, network: Network, size: tuple[int, int], precision: str, threads: int | None
    ) -> Scorer:
        """On the runtime that models are evaluated on."""
        from autovision.model.inference import compile_module

        return cls(compile_module(network, size, precision=cast(Precision, precision), threads=threads))

    def __call__(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """uint8 (N, H, W, 3) to logits (N, C) and embeddings (N, D), both float32."""
        parts = [self._compiled(pixels[i : i + MAX_BATCH]) for i in range(0, len(pixels), MAX_BATCH)]
        return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])


class Predictor:
    """A model version that is loaded, compiled and warm. Thread-safe.

    Args:
        each: the same network, of which every thread computes a batch of its own. As many images as there are threads,
            or more, are then shared among them, from decoding to the answer: none waits for the others in between.
        lanes: how it is best called by several at once; None: one batch after the other is better.
    """

    def __init__(
        self,
        model: ModelVersion,
        scorer: Scorer,
        threads: int,
        each: Scorer | None = None,
        lanes: Lanes | None = None,
    ) -> None:
        self.model = model
        self._scorer = scorer
        self._each = each if threads > 1 else None
        self._lanes = lanes if self._each is not None else None
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")

    @classmethod
    def load(cls, store: Store, model_id: str, *, threads: int | None = None) -> Predictor:
        """Load a model version from the store, on the runtime that it was evaluated with: some seconds.

        Raises:
            NotFound: no such model.
            CorruptObject: a file does not match its digest.
        """
        from autovision.model import bundle

        threads = threads or default_threads()
        version = read_version(store, model_id)
        prep = version.preprocessing
        network = bundle.load_network(store, version)
        scorer = Scorer.as_evaluated(network, (prep.height, prep.width), version.precision, threads)
        return cls.warm(version, scorer, threads)

    @classmethod
    def warm(
        cls,
        version: ModelVersion,
        scorer: Scorer,
        threads: int,
        each: Scorer | None = None,
        lanes: Lanes | None = None,
    ) -> Predictor:
        """With a network that is compiled already; it is tried once."""
        prep = version.preprocessing
        noise = np.random.default_rng(0).integers(0, 256, (2, prep.height, prep.width, 3), dtype=np.uint8)
        expected = scorer(noise[:1])[0], scorer(noise)[0]
        if each is not None and not np.allclose(each(noise)[0], expected[1], rtol=1e-3, atol=1e-3):
            _log.warning("model %s answers otherwise on one thread; images are not shared out", version.id)
            each = None
        return cls(version, scorer, threads, each, lanes)

    @property
    def runtime(self) -> str:
        """What runs the network."""
        return self._scorer.runtime

    @property
    def lanes(self) -> int:
        """Calls of `predict_in_lane` at once that are quicker than batches; 1: they are not."""
        return self._lanes.number if self._lanes is not None else 1

    @property
    def few(self) -> int:
        """Images of such a call at most, unless so many wait that each lane has `most`."""
        return self._lanes.few if self._lanes is not None else MAX_BATCH

    @property
    def most(self) -> int:
        """Images of a call then."""
        return max(self.few, self._lanes.most) if self._lanes is not None else MAX_BATCH

    def predict_in_lane(
        self, images: Sequence[bytes | image.Pixels], widen: Callable[[], bool]
    ) -> list[Prediction | InvalidImage]:
        """Like `predict`, with one thread: this one.

        Args:
            widen: whether all threads may compute the one image that there is. It is asked where they are quicker.
        """
        decoded = [self._decode(each) for each in images]
        wide = len(images) == 1 and self._lanes is not None and self._lanes.wide and widen()
        return self._results(decoded, self._scorer if wide or self._each is None else self._each)

    def predict(self, images: Sequence[bytes | image.Pixels]) -> list[Prediction | InvalidImage]:
        """One result per image; an image that cannot be decoded gives its error in its place.

        Pixels are taken as they are: uint8 (H, W, 3) as `image.load` gives them for this model.
        """
        if self._each is not None and len(images) >= self._threads:
            bounds = [len(images) * i // self._threads for i in range(self._threads + 1)]
            shares = [images[start:stop] for start, stop in itertools.pairwise(bounds)]
            return [found for share in self._pool.map(self._predict_share, shares) for found in share]
        decoded = (
            [self._decode(images[0])] if len(images) == 1 else list(self._pool.map(self._decode, images))
        )
        return self._results(decoded, self._scorer)

    def _predict_share(self, images: Sequence[bytes | image.Pixels]) -> list[Prediction | InvalidImage]:
        assert self._each is not None
        return self._results([self._decode(each) for each in images], self._each)

    def _results(
        self, decoded: Sequence[np.ndarray | InvalidImage], scorer: Scorer
    ) -> list[Prediction | InvalidImage]:
        good = [pixels for pixels in decoded if isinstance(pixels, np.ndarray)]
        if not good:
            return [pixels for pixels in decoded if isinstance(pixels, InvalidImage)]
        answers = iter(self._answers(np.stack(good), scorer))
        return [pixels if isinstance(pixels, InvalidImage) else next(answers) for pixels in decoded]

    def _decode(self, data: bytes | image.Pixels) -> np.ndarray | InvalidImage:
        if isinstance(data, np.ndarray):
            return self._checked(data)
        try:
            return image.load(data, self.model.preprocessing)
        except InvalidImage as error:
            return error

    def _checked(self, pixels: image.Pixels) -> np.ndarray | InvalidImage:
        prep = self.model.preprocessing
        if pixels.shape == (prep.height, prep.width, 3):
            return pixels
        return InvalidImage(
            f"the pixels are {pixels.shape}, and model {self.model.id!r} takes "
            f"({prep.height}, {prep.width}, 3); preprocess them for it, or send the encoded image"
        )

    def score(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """uint8 (N, H, W, 3) to probabilities (N, C) and embeddings (N, D)."""
        return self._scored(pixels, self._scorer)

    def _scored(self, pixels: np.ndarray, scorer: Scorer) -> tuple[np.ndarray, np.ndarray]:
        logits, embeddings = scorer(pixels)
        model = self.model
        return probabilities_of(logits, model.temperature, multi_label=model.multi_label), embeddings

    def _answers(self, pixels: np.ndarray, scorer: Scorer) -> list[Prediction]:
        probabilities, embeddings = self._scored(pixels, scorer)
        decided = scores(self.model.decision, probabilities)
        return [
            Prediction(self._label(said), dict(zip(self.model.classes, p.tolist(), strict=True)), embedding)
            for said, p, embedding in zip(decided, probabilities, embeddings, strict=True)
        ]

    def _label(self, decided: np.ndarray) -> Labels:
        """What scores (C,) by the decision rule say."""
        classes = self.model.classes
        if not self.model.multi_label:
            return classes[int(decided.argmax())]
        return tuple(classes[c] for c in np.flatnonzero(decided > THRESHOLD))
