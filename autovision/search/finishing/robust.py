"""What corruptions leave of candidates: what the gates of robustness will see, looked at before one is chosen.

Of heads that are equally good on clean images some lose five points to a lens that is out of focus, and others twenty.
The gates compare a challenger with the champion on corrupted test images; here candidates are compared with it on
corrupted validation images. The frozen part of a network sees these once, however many heads are asked.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch
from safetensors.torch import load as load_tensors
from torch import Tensor

from autovision.decisions import scores
from autovision.features.compute import FeatureSource, OutOfTime
from autovision.features.fill import check
from autovision.features.prefix import HeldPrefix, Prefix
from autovision.features.views import Views
from autovision.image import Pixels
from autovision.metrics import Ints, Mask, right
from autovision.model.predictor import probabilities_of
from autovision.records.models import ModelVersion, Preprocessing
from autovision.registry.corruptions import KINDS
from autovision.registry.robustness import forms, images_of
from autovision.search.costing.cost import CostModel
from autovision.search.finishing.judge import Judge, paired_error
from autovision.significance import chance_not_worse
from autovision.space.config import TrialConfig
from autovision.trial.data import Labelled
from autovision.trial.folds import rows_of
from autovision.trial.tasting import Tasting
from autovision.trial.teaching import learnt_tensors, suffix_of
from autovision.trial.workbench import Workbench

MOST = 100
"""validation images that are corrupted: with each kind of corruption the networks see five times as many"""

_MOST_HELD = 256 << 20
"""bytes of their pixels, at one size, that are kept in memory; more of them are made anew for each pass"""

Chances = tuple[tuple[float, str], ...]
"""of each kind of corruption, that its gate lets a candidate pass, and what is seen there"""


@dataclass
class Corrupted:
    """Corrupted images as the frozen part of a backbone sees them: in place of a `FeatureSource`, which stores nothing.

    Attributes:
        pixels: rows of the images that are asked for -> uint8 (B, H, W, 3).
    """

    source: FeatureSource
    pixels: Callable[[Ints], Pixels]
    _held: dict[Views, HeldPrefix] = field(default_factory=dict)

    def prefix(
        self,
        images: Sequence[str],
        views: Views,
        *,
        cut: int | None,
        columns: np.ndarray | None,
        deadline: float,
    ) -> Prefix:
        """As `FeatureSource.prefix`; what is pooled is kept, for the next head. Raises `OutOfTime`."""

        def passing(wanted: np.ndarray | None) -> Prefix:
            return self.source.passing(images, self.pixels, views, cut=cut, columns=wanted)

        if cut is not None or columns is None:
            return passing(columns)
        if views not in self._held:
            every = np.arange(self.source.shapes.columns)
            self._held[views] = HeldPrefix.of(passing(every), lambda: check(deadline))
        return HeldPrefix(self._held[views].pooled[:, :, columns])

    def holds(self, views: Views) -> bool:
        """Whether heads can be asked without another pass through the backbone."""
        return views in self._held


@dataclass
class Robustness:
    """Champion and candidates on some images of validation, with each corruption.

    Attributes:
        champion: knows the classes of all of the images.
        classes: of the search.
        split: the N images.
        margin: of accuracy, so much worse is still equal to the gates.
        most: test images that these will corrupt, at most.
        held_out: test images that there are.
        cost: what the search knows of speed; None: whatever it takes is tried.
    """

    bench: Workbench
    judge: Judge
    champion: ModelVersion
    classes: Sequence[str]
    split: Labelled
    margin: float
    most: int
    held_out: int
    cost: CostModel | None = None
    _right: Mask | None = None
    """(N, kinds) which of the champion's answers are; None: it was not asked yet"""
    _sources: dict[tuple[str, str, Preprocessing], Corrupted] = field(default_factory=dict)
    _held: tuple[Preprocessing, Pixels] | None = None
    """the pixels that were asked for last"""
    _found: dict[str, Chances] = field(default_factory=dict)

    def chances(self, key: str, config: TrialConfig, deadline: float) -> Chances:
        """That the gates let the tensors at a key pass; empty: there is no time to look.

        Args:
            deadline: seconds since the epoch.
        """
        if key not in self._found:
            try:
                if self._right is None:
                    self._right = self._of_champion(deadline)
                tensors = load_tensors(self.bench.store.get(key).data)
                self._found[key] = self._compared(self._right, tensors, config, deadline)
            except OutOfTime:
                return ()
        return self._found[key]

    def _of_champion(self, deadline: float) -> Mask:
        """By the weights of before it was trained again on validation images. Raises `OutOfTime`."""
        champion, columns = self.champion, list(self.classes)
        config, own = TrialConfig.model_validate(champion.lineage.config), len(champion.classes)
        suffix = suffix_of(self.bench, config, own)
        tensors = learnt_tensors(self.bench.store, champion, suffix)
        split = replace(self.split, targets=torch.zeros(len(self.split), own), taught=None)
        logits = self._logits(tensors, config, split, deadline)
        p = probabilities_of(logits, champion.temperature, multi_label=champion.multi_label)
        said = np.zeros((len(p), len(columns)))
        known = [at for at, name in enumerate(champion.classes) if name in columns]
        said[:, [columns.index(champion.classes[at]) for at in known]] = scores(champion.decision, p)[
            :, known
        ]
        return right(said, self._truth).reshape(-1, len(KINDS))

    def _compared(
        self, before: Mask, tensors: dict[str, Tensor], config: TrialConfig, deadline: float
    ) -> Chances:
        """Raises `OutOfTime`."""
        logits = self._logits(tensors, config, self.split, deadline)
        p = probabilities_of(logits, 1.0, multi_label=self.split.multi_label)
        after = right(self.judge.answering(p), self._truth).reshape(-1, len(KINDS))
        champion = str(self.champion.lineage.config.get("test_time_augmentation", "none"))
        gates = min(images_of(self.most, champion, config.test_time_augmentation), self.held_out)
        return tuple(self._chance(kind, before[:, at], after[:, at], gates) for at, kind in enumerate(KINDS))

    def _chance(self, kind: str, before: Mask, after: Mask, gates: int) -> tuple[float, str]:
        """`gates`: how many images these look at."""
        old, new, error = float(before.mean()), float(after.mean()), paired_error(before, after)
        noise = error * math.sqrt(len(before) / gates)
        told = f"accuracy with {kind} {old:.3f} to {new:.3f} ({len(before)} images)"
        return chance_not_worse(new - old, error, noise, self.margin), told

    @property
    def _truth(self) -> Ints:
        """Of each image once for each kind of corruption."""
        return np.repeat(self.split.truth, len(KINDS), axis=0)

    def _logits(
        self, tensors: dict[str, Tensor], config: TrialConfig, split: Labelled, deadline: float
    ) -> np.ndarray:
        """(N * kinds, C), kind by kind of each image. Raises `OutOfTime`."""
        source = self._source(config, deadline)
        every = rows_of(split, np.repeat(np.arange(len(split)), len(KINDS)))
        every = replace(
            every, images=tuple(f"{name}:{KINDS[i % len(KINDS)]}" for i, name in enumerate(every.images))
        )
        return Tasting(self.bench, every, config, deadline=deadline, source=source).logits(tensors)

    def _source(self, config: TrialConfig, deadline: float) -> Corrupted:
        """Raises `OutOfTime` where a pass through the backbone would not end in time."""
        source = self.bench.source(config)
        key = (config.backbone, config.weights, source.preprocessing)
        known = self._sources.get(key)
        if known is None or config.needs_maps or not known.holds(Views(config.test_time_augmentation)):
            needed = 0.0
            if self.cost is not None:
                images = len(self.split) * len(KINDS)
                needed = self.cost.evaluation_s(config, images, threads=self.bench.threads)
            check(deadline - needed)
        if known is None:
            known = self._sources[key] = Corrupted(source, partial(self._pixels, source.preprocessing))
        return known

    def _pixels(self, preprocessing: Preprocessing, rows: Ints) -> Pixels:
        """Rows of all corrupted images, kind by kind of each."""
        every = np.arange(len(self.split) * len(KINDS))
        if len(every) * preprocessing.height * preprocessing.width * 3 > _MOST_HELD:
            return self._made(preprocessing, rows)
        if self._held is None or self._held[0] != preprocessing:
            self._held = preprocessing, self._made(preprocessing, every)
        return self._held[1][rows]

    def _made(self, preprocessing: Preprocessing, rows: Ints) -> Pixels:
        first = int(rows.min()) // len(KINDS)
        wanted = self.split.images[first : int(rows.max()) // len(KINDS) + 1]
        with ThreadPoolExecutor(self.bench.threads, thread_name_prefix="corrupt") as pool:
            made = pool.map(lambda image: forms(self.bench.store, image, preprocessing), wanted)
            return np.concatenate(list(made))[rows - first * len(KINDS)]


def usual_loss(lost: Sequence[float]) -> float:
    """What corruptions take of what is expected of a candidate, by those of which it is known; 0 of none."""
    return float(np.mean(lost)) if lost else 0.0
