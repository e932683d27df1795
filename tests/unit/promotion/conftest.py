import numpy as np
import pytest

from autovision.promotion.gates.paired import Paired


@pytest.fixture
def answers():
    """(N, C) probabilities of a model that answers `predicted`."""

    def make(predicted, n_classes=2):
        probabilities = np.full((len(predicted), n_classes), 0.2 / max(n_classes - 1, 1))
        probabilities[np.arange(len(predicted)), predicted] = 0.8
        return probabilities

    return make


@pytest.fixture
def paired(answers):
    """Two models that disagree on `gained` and `lost` images, and agree on the others."""

    def make(n, gained, lost, accuracy=0.8, seed=0, groups=None):
        rng = np.random.default_rng(seed)
        labels = rng.integers(0, 2, n)
        right = rng.random(n) < accuracy
        before, after = right.copy(), right.copy()
        order = rng.permutation(n)
        before[order[:gained]], after[order[:gained]] = False, True
        before[order[gained : gained + lost]], after[order[gained : gained + lost]] = True, False
        predictions = [answers(np.where(model, labels, 1 - labels)) for model in (before, after)]
        return Paired(labels, *predictions, groups=groups or {}, classes=("ok", "defective"), positive=1)

    return make
