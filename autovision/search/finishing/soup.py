"""Greedy soup: the weights of several trials averaged, where validation says that it helps.

Wortsman et al. 2022: trials of one architecture, from the best down, each kept if validation gains from averaging it
in. That choice is made on validation and so looks better there than it is. Therefore the whole procedure is
cross-fitted (five folds, each group of images in one): on four of them the trials are ordered and the soup is made, and
it is judged on the fifth, against the trial that is best on the same four. Only if the soup wins there is it used.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from autovision.metrics import Floats, Ints
from autovision.records.trials import TrialResult
from autovision.search.finishing.judge import Judge
from autovision.space.config import TrialConfig
from autovision.trial.folds import divided

MOST = 12
"""trials that are tried"""
_FOLDS = 5
ARCHITECTURE = (
    *("backbone", "weights", "resolution", "drop_stages", "taps", "pooling", "head", "head_width"),
    *("adapters", "adapter_width", "unfreeze", "test_time_augmentation"),
)
"""trials that agree in these have tensors of the same shapes, which mean the same"""

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Chosen:
    """Which trials to average: places among those given, the best first; one alone where no soup helps."""

    members: tuple[int, ...]
    why: str


def candidates(best: TrialResult, ledger: Sequence[TrialResult]) -> list[TrialResult]:
    """The best trial, and then those of its architecture that left weights, by value, `MOST` at most."""
    usable = [
        r for r in ledger if r.value is not None and r.weights_key is not None and r.trial != best.trial
    ]
    same = [r for r in usable if _architecture(r) == _architecture(best)]
    return [best, *sorted(same, key=lambda r: (-(r.value or 0.0), r.number))][:MOST]


def _architecture(result: TrialResult) -> tuple[object, ...]:
    config = TrialConfig.model_validate(result.config).resolved()
    return tuple(getattr(config, name) for name in ARCHITECTURE)


def averaged(tensors: Sequence[Tensors]) -> dict[str, Tensor]:
    """The mean of each tensor; what is no floating-point number is that of the first."""
    first = tensors[0]
    return {
        name: torch.stack([each[name] for each in tensors]).mean(0) if tensor.is_floating_point() else tensor
        for name, tensor in first.items()
    }


@dataclass
class Kitchen:
    """Validation logits of averages, each computed once.

    Attributes:
        tensors: of the trials, by value.
        taste: validation logits (M, C) of tensors.
        score: what logits of some validation images (row numbers) are worth; higher is better.
    """

    tensors: Sequence[Tensors]
    taste: Callable[[Tensors], np.ndarray]
    score: Callable[[np.ndarray, Ints], float]
    _known: dict[tuple[int, ...], np.ndarray] = field(default_factory=dict)

    def logits(self, members: Sequence[int]) -> np.ndarray:
        """(M, C) of the average of some trials."""
        key = tuple(sorted(members))
        if key not in self._known:
            self._known[key] = self.taste(averaged([self.tensors[i] for i in key]))
        return self._known[key]

    def value(self, members: Sequence[int], rows: Ints) -> float:
        return self.score(self.logits(members)[rows], rows)

    def best_first(self, rows: Ints) -> list[int]:
        """All trials, by what they are worth on these images."""
        return sorted(range(len(self.tensors)), key=lambda i: (-self.value([i], rows), i))

    def greedy(self, order: Sequence[int], rows: Ints, deadline: float) -> list[int]:
        """Members of the soup by these images, the first of the order first."""
        soup = list(order[:1])
        best = self.value(soup, rows)
        for i in order[1:]:
            if time.time() >= deadline:
                break
            value = self.value([*soup, i], rows)
            if value > best:
                soup, best = [*soup, i], value
        return soup


def cook(kitchen: Kitchen, kinds: Ints, *, groups: Sequence[str] = (), seed: int, deadline: float) -> Chosen:
    """The trials to average.

    Args:
        kinds: (M,) numbers of the labels of validation images, by which folds are stratified.
        groups: (M,) of validation images, those that are kept together; none: each is by itself.
        deadline: seconds since the epoch, from which on nothing more is averaged in.
    """
    count = len(kitchen.tensors)
    if count < 2:
        return Chosen((0,), "no other trial has the shape of the best one")
    fold = divided(kinds, groups, _FOLDS, seed)
    numbers = np.unique(fold)
    if len(numbers) < 2:
        return Chosen((0,), "no soup: validation images cannot be divided, as they are of too few groups")
    rows = np.arange(len(kinds))
    soup = kitchen.greedy(range(count), rows, deadline)
    if len(soup) < 2:
        return Chosen((0,), f"averaging in none of {count - 1} other trials made validation better")
    of_soup, of_single = (np.empty_like(kitchen.logits([0])) for _ in range(2))
    for number in numbers:
        there, elsewhere = np.flatnonzero(fold == number), np.flatnonzero(fold != number)
        made = kitchen.greedy(kitchen.best_first(elsewhere), elsewhere, deadline)
        of_soup[there], of_single[there] = kitchen.logits(made)[there], kitchen.logits(made[:1])[there]
    after, before = kitchen.score(of_soup, rows), kitchen.score(of_single, rows)
    figures = f"cross-fitted value {after:.4f}, of the best trial alone {before:.4f}"
    if not after > before:
        return Chosen((0,), f"a soup of {len(soup)} of {count} trials is not better on validation: {figures}")
    return Chosen(tuple(soup), f"a soup of {len(soup)} of {count} trials is better on validation: {figures}")


def scorer(
    judge: Judge, probabilities: Callable[[np.ndarray], Floats]
) -> Callable[[np.ndarray, Ints], float]:
    """What is expected of logits of some images, by the judge of all; minus infinity where it is undefined."""

    def score(logits: np.ndarray, rows: Ints) -> float:
        return judge.only(rows).worth(probabilities(logits)).expected

    return score
