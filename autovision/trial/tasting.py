"""What trained tensors say of a split, without training them: for choosing among those that were trained."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from torch import Tensor

from autovision.space.config import TrialConfig
from autovision.trial.data import Labelled, Source, load_inputs
from autovision.trial.teaching import suffix_of
from autovision.trial.train import predict
from autovision.trial.workbench import Workbench


class Tasting:
    """Logits of tensors that fit one architecture, from stored features: nothing frozen is computed twice.

    Args:
        split: the images, usually those of validation.
        config: of any trial of this architecture.
        deadline: seconds since the epoch, by which features that are missing have to be there.
        source: what sees the images; None: the store's features of them, and what computes these.

    Raises:
        OutOfTime: they are not.
    """

    def __init__(
        self,
        bench: Workbench,
        split: Labelled,
        config: TrialConfig,
        *,
        deadline: float = math.inf,
        source: Source | None = None,
    ) -> None:
        self._suffix = suffix_of(bench, config, split.classes)
        self._inputs = load_inputs(
            source or bench.source(config),
            split,
            config,
            bench.channels(config),
            training=False,
            deadline=deadline,
            probe=False,
        )

    def logits(self, tensors: Mapping[str, Tensor]) -> np.ndarray:
        """(M, C) float32 of what `Suffix.trained_state` would give. Raises `CorruptObject` if it does not fit."""
        self._suffix.load_trained(tensors)
        return predict(self._suffix, self._inputs)
