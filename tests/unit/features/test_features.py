"""Frozen features: computed once, equal to what the network itself computes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from autovision.dataset.loader import load_pixels
from autovision.features.compute import OutOfTime
from autovision.features.views import Views
from autovision.space.config import TrialConfig
from autovision.trial.data import load_inputs
from autovision.trial.trial import Trial, assemble
from autovision.trial.workbench import Workbench


def config(**changes: object) -> TrialConfig:
    fixed = {"backbone": "test_resnet", "weights": "random", "resolution": 64, "epochs": 2, "batch_size": 8}
    return TrialConfig.model_validate({**fixed, **changes})


@pytest.mark.parametrize("unfreeze", [0, 1, 2])
@pytest.mark.parametrize("pooling", ["avg", "avgmax", "gem"])
def test_training_on_stored_features_is_training_of_the_network(
    bench: Workbench, unfreeze: int, pooling: str
) -> None:
    """What a trial trained, put together, answers pixels as the suffix answers stored features."""
    wanted = config(unfreeze=unfreeze, taps=3, pooling=pooling)
    trial = Trial(bench, "shades@1", wanted, seed=0, deadline=math.inf)
    report = list(trial.run())[-1]
    network = assemble(bench, wanted, trial.trained(), 2)
    source = bench.source(wanted)
    pixels = load_pixels(bench.store, trial.splits.validation.images, source.preprocessing, threads=1)
    with torch.inference_mode():
        logits, _ = network(torch.from_numpy(pixels))
    # Features are stored as float16.
    np.testing.assert_allclose(logits.numpy(), report.logits, atol=0.03, rtol=0.02)


def test_features_are_computed_once_and_only_what_is_missing(bench: Workbench) -> None:
    wanted, splits = config(augmentation="flip"), bench.splits("shades@1")
    source, channels = bench.source(wanted), bench.channels(wanted)

    def load(of: TrialConfig) -> int:
        before = source.computed
        load_inputs(source, splits.train, of, channels, training=True, deadline=math.inf)
        return source.computed - before

    n = len(splits.train)
    assert load(config()) == n
    assert load(wanted) == n, "the identity view is shared: only the mirrored one is new"
    assert load(wanted) == 0
    assert load(config(unfreeze=1)) == n, "activations at a cut are another kind of feature"
    other = Workbench(bench.store, threads=1)
    assert other.source(wanted).missing(splits.train.images, Views("flip"), None) == 0


def test_the_deadline_ends_the_computing(bench: Workbench) -> None:
    trial = Trial(bench, "shades@1", config(), seed=0, deadline=0.0)
    with pytest.raises(OutOfTime):
        next(trial.run())
    assert next(Trial(bench, "shades@1", config(), seed=0, deadline=0.0, must_report=True).run()).last
