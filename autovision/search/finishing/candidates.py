"""The best of a re-search's trials beside the champion: recalibrated, and as it is.

A successor has to earn its place before a gate looks at it. Each candidate is judged on validation as it would serve:
the trial and the recalibrated champion with a temperature, a shift of each class (of the champion alone) and a decision
rule that were fitted to other parts of validation (five folds, groups kept together), the unchanged champion with its
own. The champion is asked by the weights of before it was trained again on validation images. Each is worth what is
expected of offering it to the gates (`judge`). What is simpler stays unless what is less simple is better.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from safetensors.torch import load as load_tensors
from torch import Tensor

from autovision.calibration import fit_shift, fit_temperature
from autovision.decisions import scores
from autovision.metrics import Floats, Ints
from autovision.model import bundle
from autovision.model.predictor import probabilities_of
from autovision.records.models import Candidacy, Candidate, ModelVersion, Refit
from autovision.records.searches import SearchRequest
from autovision.search.finishing.court import Court
from autovision.search.finishing.judge import Worth
from autovision.search.finishing.rule import choose_rule
from autovision.space.config import TrialConfig
from autovision.trial.folds import divided, kinds_of
from autovision.trial.tasting import Tasting
from autovision.trial.teaching import learnt_tensors, served_tensors, suffix_of
from autovision.trial.trial import weights_key
from autovision.trial.workbench import Workbench

_FOLDS = 5
_SIMPLEST: Mapping[Candidate, int] = {"unchanged": 0, "recalibrated": 1}

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

    @property
    def note(self) -> str | None:
        """What is to be said where the gates will rather refuse the best than let it pass."""
        first = self.candidates[0]
        if first.chance is None or first.chance >= 0.5:
            return None
        return (
            f"no candidate that is better than the champion is likely to pass the gates; this one has a chance of "
            f"{first.chance:.0%} ({first.at_risk})"
        )


def compare(
    court: Court, config: TrialConfig, chosen_key: str, kind: Candidate, deadline: float = math.inf
) -> Compared | None:
    """The best trial and the champion; None where there is no champion that answers the same classes.

    Args:
        config: of the best trial, `kind` of candidate, whose tensors are at `chosen_key`.
        deadline: seconds since the epoch, by which to look at corrupted images.
    """
    champion, splits, bench, known = court.champion, court.splits, court.bench, court.known
    if champion is None or champion.classes != splits.version.classes:
        return None
    trained = Tasting(bench, splits.validation, config).logits(load_tensors(bench.store.get(chosen_key).data))
    shifts = TrialConfig.model_validate(champion.lineage.config).head != "cosine"
    unchanged = _as_served(champion, known)
    said: dict[Candidate, Said] = {
        "unchanged": unchanged,
        "recalibrated": _fitted(court, known, shifted if shifts else plain),
        kind: _fitted(court, trained, plain),
    }
    # As it serves now, by its own decision rule, the gates compare it with the others.
    judge = replace(court.validation, champion=unchanged[0], champion_decided=unchanged[1])
    more = {kind: court.chances(chosen_key, config, deadline)}
    ranked = ordered({name: judge.worth(*each, more=more.get(name, ())) for name, each in said.items()})
    if ranked[0].candidate != "recalibrated":
        return Compared(ranked)
    rows = splits.validation.counted
    _, shift = (shifted if shifts else plain)(known[rows], splits.validation.truth[rows])
    return Compared(ranked, _recalibrated(bench, court.request, champion, shift))


def ordered(worths: Mapping[Candidate, Worth]) -> tuple[Candidacy, ...]:
    """Candidates by what is expected of them, the best first; of equals the simpler one.

    What stays as it is asks nothing of the gates.
    """
    judged = [
        Candidacy(candidate=name, value=worth.value, expected=worth.value, chance=1.0)
        if name == "unchanged"
        else Candidacy(
            candidate=name,
            value=worth.value,
            expected=worth.expected,
            chance=worth.chance,
            at_risk=worth.at_risk,
        )
        for name, worth in worths.items()
    ]
    return tuple(sorted(judged, key=lambda each: (-(each.expected or 0.0), _SIMPLEST.get(each.candidate, 2))))


def plain(logits: np.ndarray, labels: Ints) -> tuple[float, Floats]:
    """A temperature, and no shift."""
    return fit_temperature(logits, labels), np.zeros(logits.shape[1])


def shifted(logits: np.ndarray, labels: Ints) -> tuple[float, Floats]:
    """A temperature and a shift of each class."""
    return fit_shift(logits, labels)


def _as_served(champion: ModelVersion, logits: np.ndarray) -> Said:
    p = probabilities_of(logits, champion.temperature, multi_label=champion.multi_label)
    return p, scores(champion.decision, p)


def _fitted(
    court: Court, logits: np.ndarray, fit: Callable[[np.ndarray, Ints], tuple[float, Floats]]
) -> Said:
    """What logits (N, C) of validation come to with what is fitted to the images of the other folds."""
    split, request, classes = court.splits.validation, court.request, court.splits.version.classes
    measure, truth = court.everything.measure, split.truth
    fold = divided(kinds_of(truth), split.groups, _FOLDS, request.seed)
    p, decided = np.empty(logits.shape), np.empty(logits.shape)
    counted, groups = split.counted, split.counted_groups
    for number in np.unique(fold):
        there, elsewhere = fold == number, fold[counted] != number
        rows = counted[elsewhere] if elsewhere.any() else counted  # they cannot be divided
        temperature, shift = fit(logits[rows], truth[rows])
        said = probabilities_of(logits + shift, temperature, multi_label=split.multi_label)
        rule = choose_rule(
            measure,
            said[rows],
            truth[rows],
            court.splits.positive,
            classes,
            groups=tuple(np.array(groups)[elsewhere]) if groups and elsewhere.any() else groups,
            seed=request.seed,
        )
        p[there], decided[there] = said[there], scores(rule, said[there])
    return p, decided


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
