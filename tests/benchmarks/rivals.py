"""What AutoVision's search policy is compared with, on the same recorded curves.

    RandomSearch    points from the prior, each trained to its end
    TuneSearch      Ray Tune's own `OptunaSearch` and `ASHAScheduler`, asked and told as Tune does, without a cluster
    PlainLab        what a script costs that sends every image through the whole network in every epoch
    SharedLab       the same trials with AutoVision's stored features: what is left is the search policy

Both rivals report after every epoch, ASHA with the rungs that a user gets who says how long the longest trial is. They
are given what they would not have: fine-tuning begins from AutoVision's probe head, whose training costs them nothing
in `PlainLab`, and so do decoding and augmentation.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna
from curve_table import OUTPUTS, CurveLab, at_epoch, gflops_above
from ray.tune.result import TRAINING_ITERATION
from ray.tune.schedulers import ASHAScheduler, TrialScheduler
from ray.tune.search.optuna import OptunaSearch

from autovision.model.flops import stage_gflops
from autovision.space import Space
from autovision.space.config import TrialConfig
from autovision.testing.simulation import Rung, Table, VirtualClock
from autovision.trial.train import rung_epochs

FRESH_TRIAL_S = 5.0
"""a Tune trial without `reuse_actors`, 1.3 s, and a process that imports torch and timm, 3 to 8 s"""
MOST_EPOCHS = 40


@dataclass(frozen=True)
class PlainTask:
    """A trial of a rival: nothing but a configuration."""

    trial: str
    config: TrialConfig
    seed: int
    search_started: float
    metric: str = "accuracy"
    deadline: float = math.inf
    """nobody tells a trial when the search ends"""
    must_report: bool = False


class RandomSearch:
    """Bergstra & Bengio 2012, as Tune's `BasicVariantGenerator` with no scheduler."""

    def __init__(self, space: Space, clock: VirtualClock, until: float, seed: int) -> None:
        self._space, self._clock, self._until = space, clock, until
        self._rng, self._seed, self._started = np.random.default_rng(seed), seed, clock.now
        self._begun = 0

    def next(self) -> PlainTask | None:
        if self._clock.now >= self._until:
            return None
        self._begun += 1
        return PlainTask(f"t{self._begun:05d}", self._drawn(), self._seed, self._started)

    def _drawn(self) -> TrialConfig:
        return self._space.config(self._space.sample(self._rng))

    def goes_on(self, trial: str, result: dict[str, Any]) -> bool:
        return True

    def ended(self, trial: str) -> None:
        pass


class TuneSearch(RandomSearch):
    """TPE with asynchronous halving as Ray Tune ships them."""

    def __init__(self, space: Space, clock: VirtualClock, until: float, seed: int) -> None:
        super().__init__(space, clock, until, seed)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        logging.getLogger("ray.tune.search.optuna.optuna_search").setLevel(logging.ERROR)
        np.random.seed(seed)  # of ASHA's choice among its one bracket
        self._searcher = OptunaSearch(space.suggest, metric="accuracy", mode="max", seed=seed)
        self._scheduler = ASHAScheduler(metric="accuracy", mode="max", max_t=MOST_EPOCHS)
        self._trials: dict[str, Any] = {}

    def _drawn(self) -> TrialConfig:
        name = f"t{self._begun:05d}"
        config = self._space.config(self._searcher.suggest(name) or {})
        self._trials[name] = SimpleNamespace(trial_id=name, last={})
        self._scheduler.on_trial_add(None, self._trials[name])
        return config

    def goes_on(self, trial: str, result: dict[str, Any]) -> bool:
        known = self._trials[trial]
        known.last = {"accuracy": result["objective"], TRAINING_ITERATION: result["epoch"]}
        if result["done"]:
            return False  # Tune hands the last report to neither's `on_trial_result`
        self._searcher.on_trial_result(trial, known.last)
        return bool(self._scheduler.on_trial_result(None, known, known.last) == TrialScheduler.CONTINUE)

    def ended(self, trial: str) -> None:
        known = self._trials.pop(trial)
        self._scheduler.on_trial_complete(None, known, known.last)
        self._searcher.on_trial_complete(trial, known.last)


class _EveryEpoch:
    """Curves with a point at each epoch."""

    def __init__(self, lab: CurveLab) -> None:
        self._lab = lab

    @property
    def images(self) -> Mapping[str, int]:
        return self._lab.images

    @property
    def classes(self) -> int:
        return self._lab.classes

    def table_s(self, table: Table) -> float:
        return self._lab.table_s(table)

    def curve(self, config: TrialConfig, seed: int) -> Sequence[Rung]:
        rungs = rung_epochs(config.epochs)
        values = self._lab.values(config, seed)[:: len(OUTPUTS)]
        return [
            Rung(
                epoch - 1,
                epoch,
                self.until(config, epoch),
                {"accuracy": float(np.clip(at_epoch(values, rungs, epoch), 0, 1))},
            )
            for epoch in range(1, config.epochs + 1)
        ]

    def until(self, config: TrialConfig, epoch: int) -> float:
        raise NotImplementedError

    def together_s(self, configs: Sequence[TrialConfig]) -> float:
        raise NotImplementedError("rivals train one trial at a time")


class PlainLab(_EveryEpoch):
    def tables(self, config: TrialConfig) -> Sequence[Table]:
        return ()

    def until(self, config: TrialConfig, epoch: int) -> float:
        plain = self._lab.table.data["plain"]
        whole = sum(stage_gflops(config.backbone, config.resolution)[: -config.drop_stages or None])
        forward = whole * (self.images["train"] + self.images["validation"])
        backward = gflops_above(config) * self.images["train"] if config.unfreeze else 0.0
        return float(
            epoch * (forward * plain["forward_s_per_gflop"] + backward * plain["backward_s_per_gflop"])
        )


class SharedLab(_EveryEpoch):
    def tables(self, config: TrialConfig) -> Sequence[Table]:
        return self._lab.tables(config)

    def until(self, config: TrialConfig, epoch: int) -> float:
        return self._lab.until(config, epoch - 1, epoch)
