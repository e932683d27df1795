"""The judges of a search's candidates: made of its data set, and of what the champion says.

What a champion says counts where it had not seen the images: on validation, and on new ones, by its weights of before
it was trained again. Of the old training images it is what heads of its configuration say that were trained on the
other ones, where it is such a head.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from autovision.dataset import manifest
from autovision.decisions import Measure
from autovision.errors import NotFound, WeightsUnavailable
from autovision.features.compute import OutOfTime
from autovision.metrics import Floats, Ints, Mask, members
from autovision.model.predictor import probabilities_of
from autovision.model.version import read_version
from autovision.records.models import ModelVersion
from autovision.records.searches import SearchRequest
from autovision.registry.evaluate import MOST_GROUPS
from autovision.search.costing.cost import CostModel
from autovision.search.finishing.judge import Judge, parts_of
from autovision.search.finishing.robust import MOST, Chances, Robustness
from autovision.space.config import TrialConfig
from autovision.store.protocol import Store
from autovision.trial import folds
from autovision.trial.splits import DataSplits
from autovision.trial.teaching import logits_of
from autovision.trial.workbench import Workbench


@dataclass(frozen=True)
class Court:
    """Where candidates are judged.

    Attributes:
        everything: judges the images of train, and then those of validation.
        champion: whom candidates are compared with; None: there is nobody.
        robustness: what corruptions leave of candidates; None: the gates do not look at it.
        known: (M, C) its logits of validation, in the order of its own classes; empty where there is nobody.
    """

    bench: Workbench
    request: SearchRequest
    splits: DataSplits
    everything: Judge
    champion: ModelVersion | None = None
    robustness: Robustness | None = None
    known: np.ndarray = field(default_factory=lambda: np.empty((0, 0), np.float32))

    @property
    def validation(self) -> Judge:
        """Judges the images of validation."""
        first = len(self.splits.train)
        return self.everything.only(np.arange(first, first + len(self.splits.validation)))

    def probabilities(self, logits: np.ndarray) -> Floats:
        """(N, C) of logits (N, C) of the search's classes, uncalibrated."""
        return probabilities_of(logits, 1.0, multi_label=self.splits.version.multi_label)

    def chances(self, key: str, config: TrialConfig, deadline: float) -> Chances:
        """That the gates of robustness let the tensors at a key pass; empty: they do not look, or there is no time."""
        return () if self.robustness is None else self.robustness.chances(key, config, deadline)

    def trained_config(self) -> TrialConfig | None:
        """Of the champion, if heads of it can be cross-validated.

        It is taught by nobody: who taught it knew images that it is to be judged by.
        """
        if self.champion is None:
            return None
        config = TrialConfig.model_validate(self.champion.lineage.config).with_(distill=0.0)
        return config if folds.can_be(config) else None

    def cross_validated(self, deadline: float) -> Court:
        """The same with what the champion says of training images, as far as there is time until the deadline.

        Args:
            deadline: seconds since the epoch.
        """
        config, train = self.trained_config(), self.splits.train
        if config is None or self.champion is None or train.new is None or train.new.all():
            return self
        old = np.flatnonzero(~train.new.numpy())
        splits = replace(self.splits, train=folds.rows_of(train, old))
        lineage = self.champion.lineage
        known = {} if lineage.refit is None else lineage.refit.epochs
        epochs = known.get(lineage.trial, next(iter(known.values()), config.epochs))
        said = np.array(self.everything.champion)
        try:
            (logits,) = folds.cross_validated(
                self.bench, splits, [config], [epochs], self.request.seed, deadline
            )
            if logits is None:
                return self
            several = self.champion.multi_label
            said[old] = probabilities_of(logits, self.champion.temperature, multi_label=several)
            new = np.flatnonzero(train.new.numpy())
            # Old and new images have to be mixed as they are in the test split.
            new = new[: round(len(new) * float((~np.isnan(logits[:, 0])).mean()))]
            if len(new):
                some = folds.rows_of(train, new)
                logits = logits_of(self.bench, self.champion, some, deadline=deadline)
                said[new] = _probabilities(self.champion, logits, self.splits)
        except OutOfTime:
            return self  # what validation says of it is enough to go on with
        return replace(self, everything=replace(self.everything, champion=said))


def court_of(
    bench: Workbench,
    request: SearchRequest,
    deadline: float,
    *,
    beside_champion: bool,
    cost: CostModel | None = None,
) -> Court:
    """The court of a search. The champion is asked about validation; where it cannot be, there is none.

    It cannot be if the deadline comes first, or if the weights below what it trained are out of reach.

    Args:
        deadline: seconds since the epoch.
        beside_champion: whether candidates are compared with the champion, if there is one.
        cost: what the search knows of speed; None: nothing.
    """
    splits = bench.splits(f"{request.dataset}@{request.dataset_version}", request.parent_model)
    measure = Measure.of(request.metric, request.costs, splits.version.classes)
    truth = np.concatenate([splits.train.truth, splits.validation.truth])
    repeats = np.concatenate([splits.train.repeats, splits.validation.repeats])
    court = Court(bench, request, splits, Judge(measure, truth, repeats, splits.positive))
    champion = champion_of(bench.store, request, splits) if beside_champion else None
    if champion is None or splits.train.new is None or splits.validation.new is None:
        return court
    try:
        known = logits_of(bench, champion, splits.validation, deadline=deadline)
    except (OutOfTime, WeightsUnavailable):
        return court
    said = np.full((len(truth), len(splits.version.classes)), np.nan)
    said[len(splits.train) :] = _probabilities(champion, known, splits)
    classes = splits.version.classes
    unknown = [column for column, name in enumerate(classes) if name not in champion.classes]

    def known_of(labels: Ints) -> Mask:
        return ~np.asarray(members(labels, len(classes))[:, unknown].any(1))

    in_test = known_of(splits.test.truth)
    groups = _subgroups(bench.store, request, splits, in_test)
    parts = parts_of(known_of(truth), splits.test.truth[in_test], groups, classes)
    judge = replace(court.everything, champion=said, margin=request.margin, parts=parts)
    robustness = None
    first = np.flatnonzero(known_of(splits.validation.truth))[:MOST]
    if request.robustness_margin is not None and len(first) and in_test.any():
        robustness = Robustness(
            bench,
            judge,
            champion,
            classes,
            folds.rows_of(splits.validation, first),
            request.robustness_margin,
            request.robustness_images,
            int(in_test.sum()),
            cost,
        )
    return replace(court, everything=judge, champion=champion, robustness=robustness, known=known)


def champion_of(store: Store, request: SearchRequest, splits: DataSplits) -> ModelVersion | None:
    """The model that a search's is to succeed; None: there is none that candidates could be compared with."""
    if request.parent_model is None or request.objectives:
        return None
    try:
        version = read_version(store, request.parent_model)
    except NotFound:
        return None
    # What a renormalized one says is not what its weights say of stored features.
    alike = version.multi_label == splits.version.multi_label and not version.renormalized
    return version if alike else None


def config_of_champion(store: Store, request: SearchRequest, splits: DataSplits) -> TrialConfig | None:
    """What the model that a search's is compared with is trained as."""
    champion = champion_of(store, request, splits)
    return None if champion is None else TrialConfig.model_validate(champion.lineage.config)


def _probabilities(champion: ModelVersion, logits: np.ndarray, splits: DataSplits) -> Floats:
    """(N, C) in the order of the search's classes, of logits by a champion; 0 of one that it does not know."""
    known = probabilities_of(logits, champion.temperature, multi_label=champion.multi_label)
    ours = splits.version.classes
    said = np.zeros((len(logits), len(ours)))
    for column, name in enumerate(champion.classes):
        if name in ours:
            said[:, ours.index(name)] = known[:, column]
    return said


def _subgroups(
    store: Store, request: SearchRequest, splits: DataSplits, in_test: Mask
) -> dict[str, tuple[Mask, int]]:
    """Subgroup -> (N,) which images of train and validation are in it, and how many of these of the test split are."""
    if request.subgroup is None:
        return {}
    of = {
        row.image: row.metadata[request.subgroup]
        for row in manifest.read(store, splits.version)
        if request.subgroup in row.metadata
    }
    images = splits.train.images + splits.validation.images
    held_out = [
        of.get(image) for image, known in zip(splits.test.images, in_test.tolist(), strict=True) if known
    ]
    names = sorted({name for image in images if (name := of.get(image)) is not None})
    if len(names) > MOST_GROUPS:
        return {}
    return {
        name: (np.array([of.get(image) == name for image in images]), held_out.count(name)) for name in names
    }
