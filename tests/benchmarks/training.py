"""Training one configuration to its end, and asking it about images that it has not seen."""

from __future__ import annotations

import math
from contextlib import nullcontext

import numpy as np
import torch

from autovision.space.config import TrialConfig
from autovision.trial.data import Labelled, load_inputs
from autovision.trial.loss import probabilities
from autovision.trial.train import predict
from autovision.trial.trial import Trial
from autovision.trial.workbench import Workbench


def train(bench: Workbench, dataset: str, config: TrialConfig, seed: int) -> Trial:
    """A trial that has run without a limit of time."""
    trial = Trial(bench, dataset, config, seed, deadline=math.inf)
    for _ in trial.run():
        pass
    return trial


def answers(trial: Trial, split: Labelled) -> np.ndarray:
    """Probabilities (N, C) for images as they are, by the weights that validation judges."""
    run, source, channels = (
        trial.training,
        trial.bench.source(trial.config),
        trial.bench.channels(trial.config),
    )
    inputs = load_inputs(source, split, trial.config, channels, training=False, deadline=math.inf)
    with run.ema.applied() if run.ema else nullcontext():
        logits = predict(trial.suffix, inputs, autocast=run.autocast)
    return probabilities(torch.from_numpy(logits), multi_label=split.multi_label).numpy()
