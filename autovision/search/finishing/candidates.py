"""The best of a re-search's trials beside the champion: recalibrated, and as it is.

A successor has to earn its place before a gate looks at it. Each candidate is judged on validation as it would serve:
the trial and the recalibrated champion with a temperature, a shift of each class (of the champion alone) and a decision
rule that were fitted to other parts of validation (five folds, groups kept together), the unchanged champion with its
own. The champion is asked by the weights of before it was trained again on validation images. What is simpler stays
unless what is less simple is better.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from safetensors.torch import load as load_tensors
from torch import Tensor

from autovision.calibration import fit_shift, fit_temperature
from autovision.decisions import Measure, scores
from autovision.errors import NotFound
from autovision.features.compute import OutOfTime
from autovision.metrics import Floats, Ints, neg_log_loss
from autovision.model import bundle
from autovision.model.predictor import probabilities_of
from autovision.model.version import read_version
from autovision.records.models import Candidacy, Candidate, ModelVersion, Refit
from autovision.records.searches import SearchRequest
from autovision.search.finishing.rule import choose_rule
from autovision.space.config import TrialConfig
from autovision.store.protocol import Store
from autovision.trial.execution import value_of
from autovision.trial.folds import divided, kinds_of
from autovision.trial.tasting import Tasting
from autovision.trial.teaching import learnt_tensors, logits_of, served_tensors, suffix_of
from autovision.trial.trial import DataSplits, Workbench, weights_key

_FOLDS = 5
_SIMPLEST: tuple[Candidate, ...] = ("unchanged", "recalibrated")

Said = tuple[Floats, Floats]
"""probabilities (N, C), and the decision rule's scores (N, C)"""


@dataclass(frozen=True)
class Recalibrated:
    """Keys of the champion's tensors, shifted: as they were before they saw validation images, and as they serve."""

    chosen_key: str
    final_key: str
    refit: Refit | None


@dataclass(frozen=True)
class Compared:
    """What came of it, the best first; `recalibrated` where that is the best."""

    candidates: tuple[Candidacy, ...]
    recalibrated: Recalibrated | None = None

    @property
    def best(self) -> Candidate:
        return self.candidates[0].candidate


def champion_of(store: Store, request: SearchRequest, splits: DataSplits) -> ModelVersion | None:
    """The model that a search's is to succeed, if it can answer the same images; None: there is no such."""
    if request.parent_model is None or request.objectives:
        return None
    try:
        version = read_version(store, request.parent_model)
    except NotFound:
        return None
    same = version.classes == splits.version.classes and version.multi_label == splits.version.multi_label
    return version if same else None


def compare(
    bench: Workbench,
    request: SearchRequest,
    config: TrialConfig,
    chosen_key: str,
    kind: Candidate,
    deadline: float,
) -> Compared | None:
    """The best trial and the champion, or None where there is no champion that could answer, or no time to ask it.

    Args:
        config: of the best trial, `kind` of candidate, whose tensors are at `chosen_key`.
        deadline: seconds since the epoch.
    """
    splits = bench.splits(f"{request.dataset}@{request.dataset_version}", request.parent_model)
    champion = champion_of(bench.store, request, splits)
    if champion is None:
        return None
    try:
        known = logits_of(bench, champion, splits.validation, deadline=deadline)
    except OutOfTime:
        return None
    trained = Tasting(bench, splits.validation, config).logits(load_tensors(bench.store.get(chosen_key).data))
    court = _Court(request, splits)
    shifts = TrialConfig.model_validate(champion.lineage.config).head != "cosine"
    said: dict[Candidate, Said] = {
        "unchanged": _as_served(champion, known),
        "recalibrated": court.fitted(known, shifted if shifts else plain),
        kind: court.fitted(trained, plain),
    }
    order = [*_SIMPLEST, kind]
    judged = [Candidacy(candidate=name, value=court.value(*said[name])) for name in order]
    ranked = tuple(sorted(judged, key=lambda each: (-each.value, order.index(each.candidate))))
    if ranked[0].candidate != "recalibrated":
        return Compared(ranked)
    rows = splits.validation.counted
    _, shift = (shifted if shifts else plain)(known[rows], splits.validation.truth[rows])
    return Compared(ranked, _recalibrated(bench, request, champion, shift))


def plain(logits: np.ndarray, labels: Ints) -> tuple[float, Floats]:
    """A temperature, and no shift."""
    return fit_temperature(logits, labels), np.zeros(logits.shape[1])


def shifted(logits: np.ndarray, labels: Ints) -> tuple[float, Floats]:
    """A temperature and a shift of each class."""
    return fit_shift(logits, labels)


def _as_served(champion: ModelVersion, logits: np.ndarray) -> Said:
    p = probabilities_of(logits, champion.temperature, multi_label=champion.multi_label)
    return p, scores(champion.decision, p)


class _Court:
    """Judges on validation, where each image counts as often as it did for the trials."""

    def __init__(self, request: SearchRequest, splits: DataSplits) -> None:
        self._split, self._positive, self._seed = splits.validation, splits.positive, request.seed
        self._classes, self._several = splits.version.classes, splits.version.multi_label
        self._measure = Measure.of(request.metric, request.costs, self._classes)
        self._truth = self._split.truth
        self._fold = divided(kinds_of(self._truth), self._split.groups, _FOLDS, request.seed)

    def fitted(self, logits: np.ndarray, fit: Callable[[np.ndarray, Ints], tuple[float, Floats]]) -> Said:
        """What logits (N, C) come to with what is fitted to the images of the other folds."""
        p, decided = np.empty(logits.shape), np.empty(logits.shape)
        counted, groups = self._split.counted, self._split.counted_groups
        for number in np.unique(self._fold):
            there, elsewhere = self._fold == number, self._fold[counted] != number
            rows = counted[elsewhere] if elsewhere.any() else counted  # they cannot be divided
            temperature, shift = fit(logits[rows], self._truth[rows])
            said = probabilities_of(logits + shift, temperature, multi_label=self._several)
            rule = choose_rule(
                self._measure,
                said[rows],
                self._truth[rows],
                self._positive,
                self._classes,
                groups=tuple(np.array(groups)[elsewhere]) if groups and elsewhere.any() else groups,
                seed=self._seed,
            )
            p[there], decided[there] = said[there], scores(rule, said[there])
        return p, decided

    def value(self, p: Floats, decided: Floats) -> float:
        rows = self._split.counted
        p, decided, y = p[rows], decided[rows], self._truth[rows]
        found = {
            self._measure.name: self._measure(p, y, self._positive, decided),
            "neg_log_loss": neg_log_loss(p, y),
        }
        value = value_of(found, self._measure.name)
        return value if np.isfinite(value) else float("-inf")


def _recalibrated(
    bench: Workbench, request: SearchRequest, champion: ModelVersion, shift: Floats
) -> Recalibrated:
    """The champion with a shift (C,) of its logits, as tensors of a trial of its configuration."""
    suffix = suffix_of(bench, TrialConfig.model_validate(champion.lineage.config), len(champion.classes))

    def kept(tensors: Mapping[str, Tensor]) -> str:
        moved = dict(tensors)
        if (bias := moved.get("head.out.bias")) is not None:
            moved["head.out.bias"] = bias + torch.from_numpy(shift).to(bias.dtype)
        data = bundle.tensors_file(moved)
        key = weights_key(request.id, "recalibrated", data)
        bench.store.put_immutable(key, data)
        return key

    learnt = kept(learnt_tensors(bench.store, champion, suffix))
    if champion.lineage.refit is None:
        return Recalibrated(learnt, learnt, None)
    served = kept(served_tensors(bench.store, champion, suffix))
    return Recalibrated(learnt, served, champion.lineage.refit.with_(before_key=learnt))
