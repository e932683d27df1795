"""A champion whose BatchNorm statistics have moved as what production sends has: see `adaptation`.

It is tried where more has changed than the shares of the classes: light, lenses, noise, wear. Whether it helps is told
without labels: by as many confidences above the threshold at which held-out ones are right as often as they are above
it (ATC, Garg et al. 2022), before and after.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from autovision import image
from autovision.dataset import catalog, manifest
from autovision.dataset.loader import load_pixels
from autovision.errors import InvalidImage
from autovision.metrics import Floats, Mask
from autovision.model import bundle
from autovision.model.batchnorm import norms, re_estimated
from autovision.model.network import Network
from autovision.model.predictor import Scorer, probabilities_of
from autovision.model.version import read_version
from autovision.records.base import digest_of
from autovision.records.datasets import Split
from autovision.records.deployments import Capture, Verdict
from autovision.records.models import ModelVersion
from autovision.registry.evaluate import Predictions, evaluate_subgroups, store_predictions
from autovision.store import captures
from autovision.store.protocol import KeyNotFound, Store

TRIAL = "batchnorm"
"""stands for a trial in the lineage of a model that is its parent with other BatchNorm statistics"""
_MOST_USUAL = 500
"""training images that requests are compared with"""
_RESAMPLES = 500
_THREADS = 2


@dataclass(frozen=True)
class Gain:
    """What other statistics are expected to do to accuracy on requests.

    Attributes:
        before, after: accuracy by the estimate.
        low: lower bound of the difference, one-sided at 95 %, by resampling requests and held-out images.
        n: requests.
    """

    before: float
    after: float
    low: float
    n: int


def gain(held_out: Floats, right: Mask, before: Floats, after: Floats, *, seed: int) -> Gain:
    """By confidences of held-out images (M,), which of these are right, and confidences of requests (N,) twice."""
    rng = np.random.default_rng(seed)

    def estimates(of: np.ndarray, rows: np.ndarray) -> tuple[float, float]:
        threshold = float(np.quantile(held_out[of], 1 - right[of].mean()))
        return float((before[rows] >= threshold).mean()), float((after[rows] >= threshold).mean())

    m, n = len(held_out), len(before)
    drawn = [estimates(rng.integers(m, size=m), rng.integers(n, size=n)) for _ in range(_RESAMPLES)]
    one, other = estimates(np.arange(m), np.arange(n))
    return Gain(one, other, float(np.quantile([b - a for a, b in drawn], 0.05)), n)


def decide(found: Gain) -> Verdict:
    """Accept where accuracy is sure to gain (95 %), by the estimate."""
    numbers = {"before": found.before, "after": found.after, "gain_low": found.low, "images": found.n}
    told = (
        f"with BatchNorm statistics that follow {found.n} requests the estimate of accuracy goes from "
        f"{found.before:.3f} to {found.after:.3f}, a change of at least {found.low:+.3f} with 95 % confidence"
    )
    if found.low > 0:
        return Verdict(accepted=True, what="adapt BatchNorm statistics", why=told, numbers=numbers)
    return Verdict(
        accepted=False,
        what="leave the model as it is",
        why=f"{told}: labels are needed",
        numbers=numbers,
    )


@dataclass(frozen=True)
class Renormalized:
    """What came of it; `network` is the one with other statistics."""

    verdict: Verdict
    network: Network


def attempt(
    store: Store,
    champion: ModelVersion,
    seen: Sequence[Capture],
    held_out: Predictions,
    least: int,
    *,
    seed: int,
) -> Renormalized | None:
    """Whether other statistics help; None: the champion has none, or of too few requests images are kept.

    Args:
        seen: requests that it answered.
        held_out: what it says of the test split.
        least: requests that are needed.
    """
    network = bundle.load_network(store, champion)
    if not norms(network):
        return None
    kept, pixels = [], []
    for capture in seen:
        with suppress(KeyNotFound, InvalidImage):
            pixels.append(image.load(captures.read_image(store, capture), champion.preprocessing))
            kept.append(capture)
    if len(kept) < least:
        return None
    stacked = np.stack(pixels)
    moved = re_estimated(network, stacked, _usual(store, champion, seed))
    after = _probabilities(champion, moved, stacked)[0]
    before = np.array([[each.probabilities[name] for name in champion.classes] for each in kept])
    found = gain(
        held_out.probabilities.max(1),
        held_out.probabilities.argmax(1) == held_out.labels,
        before.max(1),
        after.max(1),
        seed=seed,
    )
    return Renormalized(decide(found), moved)


def _usual(store: Store, champion: ModelVersion, seed: int) -> np.ndarray:
    """Pixels of images that it was trained on, chosen at random."""
    rows = manifest.read(store, catalog.get(store, champion.lineage.dataset))
    images = sorted(row.image for row in rows if row.split is Split.TRAIN)
    chosen = np.random.default_rng(seed).permutation(len(images))[:_MOST_USUAL]
    digests = [images[i] for i in sorted(chosen)]
    return load_pixels(store, digests, champion.preprocessing, threads=_THREADS)


def make(
    store: Store,
    champion: ModelVersion,
    network: Network,
    held_out: Predictions,
    note: str,
    clock: Callable[[], datetime],
) -> ModelVersion:
    """The champion with a network that has other statistics, evaluated on the same test split."""
    version = catalog.get(store, champion.lineage.dataset)
    pixels = load_pixels(store, held_out.images, champion.preprocessing, threads=_THREADS)
    probabilities, embeddings = _probabilities(champion, network, pixels)
    said = Predictions(
        held_out.images,
        held_out.labels,
        probabilities,
        held_out.metadata,
        champion.decision,
        held_out.together,
    )
    files = {
        bundle.WEIGHTS_FILE: bundle.weights_of(network),
        bundle.REFERENCE_FILE: bundle.reference_bytes(embeddings),
    }
    lineage = champion.lineage.with_(trial=TRIAL, parents=(champion.id,), notes=(note,))
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    model = champion.with_(
        id=f"{champion.dataset}-m-{digest_of([digests, lineage.model_dump(mode='json')])[:10]}",
        renormalized=True,
        metrics=evaluate_subgroups(
            said, champion.classes, champion.positive_class, dataset=version.id, split=Split.TEST
        ),
        files=digests,
        lineage=lineage,
        created_at=clock(),
    )
    store_predictions(store, model.id, version, Split.TEST, said)
    bundle.publish(store, model, files)
    return read_version(store, model.id)


def _probabilities(champion: ModelVersion, network: Network, pixels: np.ndarray) -> tuple[Floats, np.ndarray]:
    """(N, C) calibrated probabilities, and embeddings (N, D)."""
    prep = champion.preprocessing
    scorer = Scorer.as_evaluated(network, (prep.height, prep.width), champion.precision, _THREADS)
    logits, embeddings = scorer(pixels)
    return probabilities_of(logits, champion.temperature, multi_label=champion.multi_label), embeddings
