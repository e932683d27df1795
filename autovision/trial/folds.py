"""Heads judged on the images that they would be trained on: cross-validation from stored features."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from sklearn.model_selection import StratifiedGroupKFold

from autovision.features.compute import OutOfTime
from autovision.metrics import Ints
from autovision.space.config import TrialConfig
from autovision.trial.data import Labelled, judged_views_of, views_of
from autovision.trial.fused import HeadProblem, fit_heads
from autovision.trial.pooled import load_pooled
from autovision.trial.splits import DataSplits
from autovision.trial.teaching import taught
from autovision.trial.workbench import Workbench

FOLDS = 5
_AT_LEAST = 2
"""heads of which the first fold is judged before the others are begun"""


def can_be(config: TrialConfig) -> bool:
    """Whether a configuration is a head that is judged under views that it is also trained on: nothing is missing.

    Views that are drawn afresh in every epoch are not kept, and so never judged under.
    """
    trained = views_of(config)
    if config.needs_maps or trained.number is None:
        return False
    return set(judged_views_of(config).names()) <= set(trained.names())


def cross_validated(
    bench: Workbench,
    splits: DataSplits,
    configs: Sequence[TrialConfig],
    epochs: Sequence[int],
    seed: int,
    deadline: float,
) -> list[np.ndarray | None]:
    """Logits (N, C) of the training images, each by a head of the configuration that did not see it or its group.

    None for a head that failed in some fold, or that there was no time for (the first ones come first), and for all
    where images cannot be divided. Rows of folds that the deadline did not leave time for are NaN, the same ones for
    all. Heads of one backbone are trained together.

    Args:
        configs: for each of them `can_be` holds.
        epochs: of each, after how many epochs of its schedule it is judged. Patience has no say here: it would choose
            the epoch that the very images like best which are to judge it.
        deadline: seconds since the epoch.

    Raises:
        OutOfTime: not even one fold of the first two was over by then.
    """
    train = taught(bench, splits, splits.train, configs)
    configs = [config.with_(patience=0) for config in configs]
    found: list[np.ndarray | None] = [
        np.full((len(train), train.classes), np.nan, np.float32) for _ in configs
    ]
    fold = folds_of(train, FOLDS, seed)
    if len(set(fold.tolist())) < 2:
        return [None for _ in configs]

    def judge(which: Sequence[int], number: int) -> None:
        """Heads in one fold, those of one backbone together."""
        rows = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
        judged: dict[int, np.ndarray | None] = {}
        for group in _by_backbone(configs, which):
            of_group = [configs[i] for i in group], [epochs[i] for i in group]
            logits = _judged(bench, train, splits.positive, *of_group, rows, seed, deadline)
            judged |= dict(zip(group, logits, strict=True))
        for i, own in judged.items():
            if (of_head := found[i]) is not None and own is not None:
                of_head[rows[1]] = own
            else:
                found[i] = None

    first, *others = sorted(set(fold.tolist()))
    begun, which = time.time(), list(range(min(_AT_LEAST, len(configs))))
    judge(which, first)
    # What they took tells how many there is time for: a prediction that was too low must not cost all that was done.
    each_s = max((time.time() - begun) / len(which), 1e-6)
    most = (deadline - begun) / (each_s * (len(others) + 1))
    more = list(range(len(which), int(min(most, len(configs)))))
    try:
        if more:
            judge(more, first)
        which += more
        for number in others:
            judge(which, number)
    except OutOfTime:
        pass  # rows of what was not over are missing for all
    return [found[i] if i in which else None for i in range(len(configs))]


def _judged(
    bench: Workbench,
    train: Labelled,
    positive: int | None,
    configs: Sequence[TrialConfig],
    epochs: Sequence[int],
    rows: tuple[Ints, Ints],
    seed: int,
    deadline: float,
) -> list[np.ndarray | None]:
    """Of each head of one backbone, trained on the first rows, logits of the second ones; None of one that failed."""
    source, channels = bench.source(configs[0]), bench.channels(configs[0])
    learnt, judged = (
        load_pooled(source, rows_of(train, of), configs, channels, training=training, deadline=deadline)
        for of, training in zip(rows, (True, False), strict=True)
    )
    problem = HeadProblem(learnt, judged, channels, positive)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    heads = fit_heads(configs, problem, seed, deadline, device, epochs)
    if time.time() >= deadline:
        raise OutOfTime
    return [head.reports[-1].logits if head.reports and head.error is None else None for head in heads]


def _by_backbone(configs: Sequence[TrialConfig], which: Sequence[int]) -> list[list[int]]:
    groups: dict[tuple[object, ...], list[int]] = {}
    for i in which:
        config = configs[i]
        groups.setdefault((config.backbone, config.weights, config.resolution), []).append(i)
    return list(groups.values())


def folds_of(split: Labelled, folds: int, seed: int) -> Ints:
    """(N,) the fold of each image of a split: see `divided`."""
    return divided(kinds_of(split.truth), split.groups, folds, seed)


def divided(kinds: Ints, groups: Sequence[str], folds: int, seed: int) -> Ints:
    """(N,) the fold of each of N images: those of a kind are spread evenly, a group's images are all in one.

    There are fewer folds where there are fewer groups, or no kind has so many images: one alone where the images cannot
    be divided.

    Args:
        kinds: (N,) numbers of the labels, or sets of labels.
        groups: (N,) of each image; none: each is by itself.
    """
    count = len(set(groups))
    if count in (0, len(kinds)):
        return _stratified(kinds, folds, seed)
    fold = np.zeros(len(kinds), np.intp)
    folds = min(folds, count, int(np.bincount(kinds).max()))
    if folds < 2:
        return fold
    cut = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", "The least populated class", UserWarning
        )  # it is spread as far as it goes
        for number, (_, there) in enumerate(cut.split(np.zeros(len(kinds)), kinds, np.array(groups))):
            fold[there] = number
    return fold


def _stratified(kinds: Ints, folds: int, seed: int) -> Ints:
    rng = np.random.default_rng(seed)
    order = np.lexsort([rng.random(len(kinds)), kinds])
    fold = np.empty(len(kinds), np.intp)
    fold[order] = np.arange(len(kinds)) % folds
    return fold


def kinds_of(truth: Ints) -> Ints:
    """(N,) numbers of the distinct labels, or sets of labels."""
    return np.unique(truth, axis=0, return_inverse=True)[1].ravel()


def rows_of(split: Labelled, rows: Ints) -> Labelled:
    """Some images of a split."""
    at = torch.from_numpy(np.asarray(rows, np.int64))
    return replace(
        split,
        images=tuple(split.images[i] for i in rows),
        targets=split.targets[at],
        confidence=split.confidence[at],
        groups=tuple(split.groups[i] for i in rows) if split.groups else (),
        new=None if split.new is None else split.new[at],
        taught=None if split.taught is None else split.taught[at],
    )
