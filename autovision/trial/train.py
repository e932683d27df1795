"""The training loop, top to bottom.

    begin        a head, fitted to pooled features, for the unfrozen stages to start from (LP-FT)
    fit          epochs, rungs, early stopping
    run_epoch    steps: draw a batch, mix it, forward, loss, backward, clip, update (`step.py`)
    judge        validation

Linear probing before fine-tuning keeps pretrained features from being distorted (Kumar et al. 2022). BatchNorm keeps
its pretrained statistics: batches here are small, and serving folds them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from autovision import metrics
from autovision.model.network import Suffix
from autovision.space.config import TrialConfig
from autovision.trial.data import Inputs, Labelled, averaged, pooled_statistics, tensors
from autovision.trial.loss import probabilities
from autovision.trial.state import Best, Problem, Training
from autovision.trial.step import run_epoch
from autovision.trial.world import World

RUNGS = 3
_REDUCTION = 3
"""each rung trains three times as many epochs as the one before"""
PROBE_EPOCHS = 30


@dataclass(frozen=True)
class RungReport:
    """What training came to at the end of a rung."""

    rung: int
    epoch: int
    train_loss: float
    metrics: dict[str, float]
    """on validation"""
    logits: np.ndarray
    """(M, C) float32, of the validation images"""
    last: bool
    judged_epoch: int | None = None
    """after which the weights were as judged here, if that was an earlier epoch: early stopping went back to it"""


def rung_epochs(epochs: int) -> list[int]:
    """The epochs after which a trial reports: about a ninth, a third, all of them."""
    return sorted({max(1, math.ceil(epochs / _REDUCTION ** (RUNGS - 1 - rung))) for rung in range(RUNGS)})


def begin(
    suffix: Suffix,
    problem: Problem,
    config: TrialConfig,
    seed: int,
    deadline: float,
    initial: dict[str, Tensor] | None,
) -> None:
    """Give the suffix a head to start from: a known one, or one that is fitted to the pooled features."""
    suffix.eval()
    pooled = problem.train.pooled
    if initial is not None:
        suffix.head.load_state_dict(initial)
    elif pooled is not None:
        suffix.head.standardize(*pooled_statistics(pooled))
    if pooled is None or problem.validation.pooled is None or not config.needs_maps:
        return
    head_only = Problem(
        replace(problem.train, prefix=pooled),
        replace(problem.validation, prefix=problem.validation.pooled),
        problem.positive,
    )
    probe = config.with_(
        unfreeze=0, adapters=0, cutmix=0.0, l2_sp=0.0, ema=0.0, patience=0, epochs=PROBE_EPOCHS
    )
    for _ in fit(Training(suffix, head_only, probe, seed), deadline):
        pass


def fit(
    run: Training, deadline: float, on_epoch: Callable[[Training], None] = lambda run: None
) -> Iterator[RungReport]:
    """Train until the epochs are over, yielding at each rung; at the deadline (epoch seconds) once more.

    Args:
        on_epoch: called after every whole epoch, when a checkpoint can be taken.

    Raises:
        NotFinite: the loss diverged.
    """
    rungs = rung_epochs(run.config.epochs)
    if run.epoch in rungs:
        # Taken up at a checkpoint of this rung: whoever waited for its report may be gone, too.
        told_again = judge(run, rungs, last=False)
        run.loss_sum, run.loss_steps = 0.0, 0
        yield told_again
    while run.epoch < run.config.epochs:
        late = run_epoch(run, deadline)
        run.epoch += 1
        report = None
        if late or run.epoch in rungs or run.config.patience:
            report = judge(run, rungs, last=late or run.epoch == run.config.epochs)
        if run.config.patience and report is not None:
            report = _remember(run, report, rungs)
        if not late and not (report and report.last):
            on_epoch(run)
        if report is not None and (report.last or run.epoch in rungs):
            run.loss_sum, run.loss_steps = 0.0, 0
            yield report
        if report is not None and report.last:
            return


def judge(run: Training, rungs: list[int], *, last: bool) -> RungReport:
    """The state of training on validation: by the moving average of the weights, if there is one."""
    validation = run.problem.validation
    if run.ema is None:
        outputs = predict(run.suffix, validation, autocast=run.autocast, world=run.world)
    else:
        with run.ema.applied():
            outputs = predict(run.suffix, validation, autocast=run.autocast, world=run.world)
    return RungReport(
        rung=rungs.index(run.epoch) if run.epoch in rungs else len(rungs),
        epoch=run.epoch,
        train_loss=run.loss_sum / max(1, run.loss_steps),
        metrics=run.world.jointly(lambda: score(outputs, validation.labelled, run.problem.positive)),
        logits=outputs,
        last=last,
    )


def score(logits: np.ndarray, split: Labelled, positive: int | None) -> dict[str, float]:
    """All metrics of logits (M, C) on the images of a split, each as often as it counts there."""
    said = probabilities(torch.from_numpy(logits), multi_label=split.multi_label).numpy()
    rows = split.counted
    return metrics.score(said[rows], split.truth[rows], positive)


def _remember(run: Training, report: RungReport, rungs: list[int]) -> RungReport:
    """Early stopping (Prechelt 1998) on the log loss: keep the best epoch, and end with it."""
    value = report.metrics["neg_log_loss"]
    if run.best is None or value > run.best.value:
        run.best = Best(run.epoch, value, judged_state(run))
    patient = run.epoch - run.best.epoch < run.config.patience
    if patient and not report.last:
        return report
    restore_judged(run, run.best.tensors)
    return replace(judge(run, rungs, last=True), epoch=run.epoch, judged_epoch=run.best.epoch)


def judged_state(run: Training) -> dict[str, Tensor]:
    """A copy of what validation judged: the trained tensors, averaged where they are."""
    if run.ema is None:
        return {name: tensor.detach().clone() for name, tensor in run.suffix.trained_state().items()}
    with run.ema.applied():
        return {name: tensor.detach().clone() for name, tensor in run.suffix.trained_state().items()}


def restore_judged(run: Training, state: dict[str, Tensor]) -> None:
    """Make that state the one that is judged."""
    if run.ema is None:
        run.suffix.load_trained(state)
        return
    with run.ema.applied():
        run.suffix.load_trained(state)


@torch.no_grad()
def predict(
    suffix: Suffix, split: Inputs, *, autocast: bool = False, world: World | None = None
) -> np.ndarray:
    """Logits (M, C) float32, without noise: the mean over the split's views, which for most is the image itself."""
    world = world or World()
    device = next(suffix.head.parameters()).device
    mine, parts = world.part(len(split)), []
    # Whoever has no rows computes one that nobody takes: not every network takes an empty batch.
    computed = np.arange(mine.start, max(mine.stop, mine.start + 1))

    def logits(views: np.ndarray, rows: np.ndarray) -> Tensor:
        activation, below = tensors(split.prefix, views, rows, device)
        with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
            return suffix(activation, below).float()  # type: ignore[no-any-return]

    for rows in np.array_split(computed, math.ceil(len(computed) / 256)):
        parts.append(averaged(split.prefix, rows, logits).cpu().numpy())
    return world.gather(np.concatenate(parts)[: mine.stop - mine.start])
