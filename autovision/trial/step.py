"""One epoch: load a batch, mix it, forward, loss, backward, clip, update."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext

import numpy as np
import torch
from torch import Tensor, nn

from autovision.model.noise import Noise
from autovision.space.config import TrialConfig
from autovision.trial.data import tensors
from autovision.trial.loss import losses
from autovision.trial.mixing import blend, paste
from autovision.trial.optim import rate_factor, set_rate, unlock
from autovision.trial.schedule import Step, epoch_steps, steps_per_epoch
from autovision.trial.state import Training

_CHECK_EVERY = 8
"""steps between two looks at what makes a GPU, or other workers, wait"""


class NotFinite(Exception):
    """The loss became infinite or NaN; lower the learning rate."""


def run_epoch(run: Training, deadline: float) -> bool:
    """One epoch, or what of it the deadline leaves; whether the deadline came."""
    if unlock(run.suffix, run.config, run.epoch) or run.network is None:
        run.network = run.world.wrap(run.suffix)
    steps = steps_per_epoch(run.config, len(run.problem.train))
    losses_of_epoch: list[Tensor] = []
    late = False
    for number, (step, parts) in enumerate(_batches(run)):
        set_rate(
            run.optimizer, rate_factor(run.config, run.epoch * steps + number, run.config.epochs * steps)
        )
        losses_of_epoch.append(_update(run, step, parts))
        if number % _CHECK_EVERY == _CHECK_EVERY - 1:
            _check_finite(run, losses_of_epoch[-_CHECK_EVERY:])
        if run.world.size == 1 or number % _CHECK_EVERY == 0:
            late = run.world.late(deadline)
        if late:
            break
    _check_finite(run, losses_of_epoch)
    run.loss_sum += run.world.total(float(torch.stack(losses_of_epoch).sum()))
    run.loss_steps += len(losses_of_epoch)
    return late


Pair = tuple[Tensor | None, Tensor | None]
"""activation at the cut and pooled taps below it"""
Part = tuple[slice, Pair, Pair]
"""rows of the batch, what the suffix takes in of them, and of their partners"""


def _batches(run: Training) -> Iterator[tuple[Step, list[Part]]]:
    """The steps of the epoch, each with this worker's parts; the next one is loaded while one is computed."""
    train = run.problem.train
    steps = epoch_steps(
        run.config,
        train.labelled,
        train.prefix.views,
        maps=run.map_size is not None,
        seed=run.seed,
        epoch=run.epoch,
    )
    if not run.config.needs_maps:  # pooled rows are read in less time than another thread takes to begin
        yield from ((step, _load(run, step)) for step in steps)
        return
    with ThreadPoolExecutor(1, thread_name_prefix="batches") as loader:
        ahead: tuple[Step, Future[list[Part]]] | None = None
        for step in steps:
            loading = step, loader.submit(_load, run, step)
            if ahead is not None:
                yield ahead[0], ahead[1].result()
            ahead = loading
        if ahead is not None:
            yield ahead[0], ahead[1].result()


def _idle(run: Training, step: Step) -> bool:
    """Whether this worker has no rows of the batch, which is smaller than the workers are many."""
    mine = run.world.part(len(step))
    return bool(mine.start == mine.stop)


def _load(run: Training, step: Step) -> list[Part]:
    # Whoever has no rows takes part in the step with one that does not count: not every network takes an empty batch.
    mine = slice(0, 1) if _idle(run, step) else run.world.part(len(step))
    count = mine.stop - mine.start
    pieces = min(run.accumulate, count)
    bounds = [mine.start + count * i // pieces for i in range(pieces + 1)]
    parts = []
    for start, stop in itertools.pairwise(bounds):
        rows = np.arange(start, stop)
        x = _rows(run, step, rows)
        other: Pair = (None, None)
        if step.mix is not None:
            partners = step.mix.partner[rows]
            whole = count == len(step) and pieces == 1
            # Of a whole batch the partners are here already.
            other = _of(x, partners) if whole else _rows(run, step, partners)
        parts.append((slice(start, stop), x, other))
    return parts


def _of(pair: Pair, rows: np.ndarray) -> Pair:
    activation, below = pair
    return None if activation is None else activation[rows], None if below is None else below[rows]


def _rows(run: Training, step: Step, rows: np.ndarray) -> Pair:
    return tensors(run.problem.train.prefix, step.views[rows], step.rows[rows], run.device)


def _update(run: Training, step: Step, parts: list[Part]) -> Tensor:
    """One step of the optimizer; the weighted mean loss of this worker's rows, as their share of the whole."""
    targets, weights = run.targets[step.rows], run.weights[step.rows]
    if step.mix is not None:
        share = step.mix.left(run.map_size) if run.map_size else step.mix.share
        targets = blend(targets, targets[step.mix.partner], share)
        weights = blend(weights, weights[step.mix.partner], share)
    run.optimizer.zero_grad(set_to_none=True)
    total = torch.zeros((), device=run.device)
    assert run.network is not None
    for number, part in enumerate(parts):
        last = number == len(parts) - 1
        with nullcontext() if last else run.world.unsynchronized(run.network):
            loss = _forward(run, step, part, targets[part[0]], weights[part[0]]) / weights.sum()
            if _idle(run, step):
                loss = loss * 0.0
            total += loss.detach()
            # Several workers average their gradients, and each has but its part of the sum.
            objective = loss * run.world.size
            if last and run.config.l2_sp:
                objective = objective + _pull(run)
            objective.backward()  # type: ignore[no-untyped-call]
    if run.config.clip_norm:
        nn.utils.clip_grad_norm_(run.new, run.config.clip_norm)
        nn.utils.clip_grad_norm_(run.stages, run.config.clip_norm)
    run.optimizer.step()
    if run.ema is not None:
        run.ema.update()
    return total


def _forward(run: Training, step: Step, part: Part, targets: Tensor, weights: Tensor) -> Tensor:
    """The weighted sum of the losses of a part of a batch."""
    rows, (activation, below), (other_activation, other_below) = part
    if step.mix is not None:
        if activation is not None:
            assert other_activation is not None
            if step.mix.corner is None:
                activation = blend(activation, other_activation, step.mix.share)
            else:
                activation = paste(activation, other_activation, step.mix, run.suffix.input_layout)
        if below is not None:
            assert other_below is not None
            share = step.mix.left(run.map_size) if run.map_size else step.mix.share
            below = blend(below, other_below, share)
    noise = Noise(step.noise_seed, len(step), rows)
    with torch.autocast(run.device.type, torch.bfloat16, enabled=run.autocast):
        assert run.network is not None
        logits = run.network(activation, below, noise)
    each = losses(logits + run.prior, targets, run.config, multi_label=run.problem.multi_label)
    return each.mul(weights).sum()


def _pull(run: Training) -> Tensor:
    """L2-SP (Li et al. 2018): half the squared distance of the trained stages from where they started."""
    distances = [
        (now - then).square().sum()
        for now, then in zip(run.stages, run.start, strict=True)
        if now.requires_grad
    ]
    return 0.5 * run.config.l2_sp * torch.stack(distances).sum()


def _check_finite(run: Training, recent: list[Tensor]) -> None:
    values = torch.stack(recent)
    odd = values[~torch.isfinite(values)]
    if run.world.any(len(odd) > 0):
        raise NotFinite(diverged(float(odd[0]) if len(odd) else math.nan, run.config, run.epoch))


def diverged(loss: float, config: TrialConfig, epoch: int) -> str:
    """What to say of a loss that is not finite."""
    return f"loss is {loss:g} in epoch {epoch + 1} at lr={config.lr:g}; lower the learning rate"
