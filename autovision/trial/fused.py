"""Hundreds of heads on pooled features, trained together, each as it would have been trained alone.

    fit_heads    lots that fit into memory, one after the other
    cohorts      of a lot: heads that draw the same rows under the same views, and so read each batch once
    stacks       of a cohort: heads of the same shape, whose parameters are stacked and trained as one (`stack.py`)

As horizontally fused training arrays (Wang et al. 2021), for heads that differ in any hyperparameter. Every draw
follows from the seed and the epoch alone (`schedule.py`), so that a head sees the very batches, views, partners
and noise that it would have seen alone; what differs is in which order floating-point numbers are summed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from autovision.errors import InvalidInput
from autovision.features.views import Views
from autovision.model.heads import Head
from autovision.space.config import TrialConfig
from autovision.trial.data import pooled_statistics, views_of
from autovision.trial.memory import allowance
from autovision.trial.optim import rate_factor
from autovision.trial.pooled import Batches, PooledSplit, head_columns
from autovision.trial.schedule import steps_per_epoch
from autovision.trial.stack import Member, Stack, shape_of
from autovision.trial.state import Best
from autovision.trial.step import diverged
from autovision.trial.train import RungReport, rung_epochs, score


@dataclass(frozen=True)
class FittedHead:
    """What became of one of many heads.

    Attributes:
        reports: at the end of each rung that it reached, as `train.fit` yields them.
        tensors: what `Suffix.trained_state` of this configuration would hold, in the state that was judged last;
            empty if it failed.
        error: why it failed, and how to do better; None: it did not.
    """

    config: TrialConfig
    reports: tuple[RungReport, ...]
    tensors: dict[str, Tensor]
    error: str | None


@dataclass
class _Progress:
    """What a head has come to so far, and the epoch that it ends with."""

    ends: int
    reports: list[RungReport] = field(default_factory=list)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    error: str | None = None
    best: Best | None = None
    best_logits: np.ndarray | None = None
    loss_sum: float = 0.0
    loss_steps: int = 0


@dataclass(frozen=True)
class HeadProblem:
    """What heads learn from and are judged by, as `load_pooled` gives it for all of their configurations.

    Attributes:
        channels: of every stage of the whole backbone.
        positive: the class that F1, precision and recall speak of; None: all alike.
    """

    train: PooledSplit
    validation: PooledSplit
    channels: Sequence[int]
    positive: int | None


def fit_heads(
    configs: Sequence[TrialConfig],
    problem: HeadProblem,
    seed: int,
    deadline: float,
    device: torch.device,
    ends: Sequence[int] | None = None,
) -> list[FittedHead]:
    """Train a head of each configuration, in the order given; they differ in anything but the backbone.

    Heads whose loss is not finite fail alone. At the deadline (seconds since the epoch) all heads are judged as
    they are, after one step at least.

    Args:
        ends: of each, after how many epochs of its schedule it ends; None: after all.

    Raises:
        InvalidInput: a configuration trains on more than pooled features, or is of another backbone.
    """
    _check_one_backbone(configs)
    members = _members(configs, problem, seed)
    epochs = [config.epochs for config in configs]
    progress = [_Progress(min(end, most)) for end, most in zip(ends or epochs, epochs, strict=True)]
    lots = _lots(members, allowance(device, torch.get_num_threads()))
    for number, lot in enumerate(lots):
        # Each lot gets the same share of the time that is left.
        until = time.time() + (deadline - time.time()) / (len(lots) - number)
        _fit_lot(lot, progress, problem, seed, until, device)
    return [
        FittedHead(config, tuple(each.reports), each.tensors, each.error)
        for config, each in zip(configs, progress, strict=True)
    ]


def _check_one_backbone(configs: Iterable[TrialConfig]) -> None:
    found = sorted({(c.backbone, c.weights, str(c.resolution)) for c in configs})
    if len(found) > 1:
        raise InvalidInput(
            f"heads that are trained together read the features of one backbone, and these are of {len(found)}: "
            f"{', '.join(' '.join(each) for each in found[:3])}; train those of each backbone by themselves"
        )


def _members(configs: Sequence[TrialConfig], problem: HeadProblem, seed: int) -> list[Member]:
    if not configs:
        return []
    train = problem.train
    mean, std = pooled_statistics(next(iter(train.prefixes.values())))
    members = []
    with torch.random.fork_rng(devices=[]):
        for number, config in enumerate(configs):
            places = train.places(head_columns(config, problem.channels))
            torch.default_generator.manual_seed(
                seed
            )  # a head alone begins with the first random numbers of its seed
            head = Head(config, len(places), train.labelled.classes)
            head.standardize(mean[places], std[places])
            members.append(Member(number, config, places, head))
    return members


def _lots(members: Sequence[Member], allowed: int) -> list[list[Member]]:
    """In their order, as many at a time as fit into so many bytes; one at least."""
    lots: list[list[Member]] = []
    room = 0
    for member in members:
        size = _bytes(member)
        if not lots or size > room:
            lots.append([])
            room = allowed
        lots[-1].append(member)
        room -= size
    return lots


def _bytes(member: Member) -> int:
    """Of what training keeps of a head: parameters, gradients, moments, and averages and the best epoch if any."""
    copies = 6 + (1 if member.config.ema else 0) + (1 if member.config.patience else 0)
    return copies * sum(p.numel() * p.element_size() for p in member.head.parameters())


def _fit_lot(
    members: Sequence[Member],
    progress: Sequence[_Progress],
    problem: HeadProblem,
    seed: int,
    deadline: float,
    device: torch.device,
) -> None:
    cohorts = [_Cohort(group, progress, problem, seed, device) for group in _grouped(members, _drawn_alike)]
    # The one that is furthest behind goes on, so that a deadline finds all equally far.
    while running := [cohort for cohort in cohorts if cohort.stacks]:
        min(running, key=lambda cohort: cohort.share_done).run_epoch(deadline)


def _drawn_alike(member: Member) -> tuple[int, str, Views]:
    """Heads of which this is equal see the same rows under the same views."""
    return member.config.batch_size, member.config.sampling, views_of(member.config)


class _Cohort:
    """Heads that see the same rows under the same views.

    Attributes:
        stacks: of those that are still trained.
    """

    def __init__(
        self,
        members: Sequence[Member],
        progress: Sequence[_Progress],
        problem: HeadProblem,
        seed: int,
        device: torch.device,
    ) -> None:
        self._progress, self._problem = progress, problem
        self._batches = Batches(problem.train, [m.config for m in members], seed, device)
        self.stacks = [
            Stack(group, problem.train.labelled, self._batches, device)
            for group in _grouped(members, shape_of)
        ]
        self._steps = steps_per_epoch(members[0].config, len(problem.train))
        self._longest = max(m.config.epochs for m in members)
        self._epoch = 0

    @property
    def share_done(self) -> float:
        return self._epoch / self._longest

    def run_epoch(self, deadline: float) -> None:
        """One epoch, or what of it the deadline leaves, of all heads; those that are done leave their stack."""
        rates = [self._rates(stack) for stack in self.stacks]
        losses: list[list[Tensor]] = [[] for _ in self.stacks]
        late = False
        for number, batch in enumerate(self._batches.epoch(self._epoch)):
            for stack, rate, history in zip(self.stacks, rates, losses, strict=True):
                history.append(stack.update(batch, rate[number]))
            late = time.time() >= deadline
            if late:
                break
        self._epoch += 1
        for stack, history in zip(self.stacks, losses, strict=True):
            going = self._judge(stack, torch.stack(history).cpu(), late)
            if len(going) < len(stack.members):
                stack.select(going)
        self.stacks = [stack for stack in self.stacks if stack.members]

    def _rates(self, stack: Stack) -> Tensor:
        """(steps, H) float64: every head's learning rate in every step of the epoch."""
        configs, steps = [member.config for member in stack.members], self._steps
        first = self._epoch * steps
        of = {
            (c.warmup, c.epochs): [
                rate_factor(c, number, c.epochs * steps) for number in range(first, first + steps)
            ]
            for c in {(c.warmup, c.epochs): c for c in configs}.values()
        }
        peaks = torch.tensor([c.lr for c in configs], dtype=torch.float64)
        factors = torch.tensor([of[c.warmup, c.epochs] for c in configs], dtype=torch.float64)
        return (peaks[:, None] * factors).t().to(stack.device)

    def _judge(self, stack: Stack, losses: Tensor, late: bool) -> list[int]:
        """Record what the heads of a stack have come to, given their losses (steps, H); those that go on."""
        sums, finite = losses.sum(0).tolist(), losses.isfinite().all(0).tolist()
        logits: np.ndarray | None = None
        going = []
        for index, member in enumerate(stack.members):
            config, progress = member.config, self._progress[member.number]
            if not finite[index]:
                odd = losses[:, index]
                progress.error = diverged(float(odd[~odd.isfinite()][0]), config, self._epoch - 1)
                continue
            progress.loss_sum += sums[index]
            progress.loss_steps += len(losses)
            if (
                late
                or config.patience
                or self._epoch == progress.ends
                or self._epoch in rung_epochs(config.epochs)
            ):
                if logits is None:
                    logits = stack.predict(self._problem.validation.prefixes[stack.judged])
                if self._is_over(stack, index, logits[:, index], late):
                    continue
            going.append(index)
        return going

    def _is_over(self, stack: Stack, index: int, logits: np.ndarray, late: bool) -> bool:
        """Report a head, of which these are the logits (M, C), where that is due; whether its training is over."""
        config, progress = stack.members[index].config, self._progress[stack.members[index].number]
        rungs = rung_epochs(config.epochs)
        last = late or self._epoch == progress.ends
        try:
            measured = self._score(logits)
        except InvalidInput as error:  # the last step's weights are not finite
            progress.error = str(error)
            return True
        if config.patience:
            if progress.best is None or measured["neg_log_loss"] > progress.best.value:
                progress.best = Best(self._epoch, measured["neg_log_loss"], stack.tensors(index))
                progress.best_logits = logits
            last = last or self._epoch - progress.best.epoch >= config.patience
            if last:
                assert progress.best_logits is not None
                logits = progress.best_logits
                measured = self._score(logits)
        if last or self._epoch in rungs:
            report = RungReport(
                rung=rungs.index(self._epoch) if self._epoch in rungs else len(rungs),
                epoch=self._epoch,
                train_loss=progress.loss_sum / progress.loss_steps,
                metrics=measured,
                logits=np.ascontiguousarray(logits),
                last=last,
                judged_epoch=progress.best.epoch if last and progress.best else None,
            )
            progress.reports.append(report)
            progress.loss_sum, progress.loss_steps = 0.0, 0
        if last:
            progress.tensors = progress.best.tensors if progress.best else stack.tensors(index)
        return last

    def _score(self, logits: np.ndarray) -> dict[str, float]:
        return score(logits, self._problem.validation.labelled, self._problem.positive)


def _grouped(members: Iterable[Member], key: Callable[[Member], Hashable]) -> list[list[Member]]:
    groups: dict[Hashable, list[Member]] = {}
    for member in members:
        groups.setdefault(key(member), []).append(member)
    return list(groups.values())
