"""Which of the best trials is the best: judged once more, on more images than validation has.

The best of a thousand trials on a few hundred validation images is mostly the luckiest (Cawley & Talbot 2010). Heads
train in seconds, so the best few are cross-validated on the training images, and what they say of these is judged
together with what they said of validation: several times the images, and none that a head was trained on. There they
are trained for as many epochs as the trial itself was when it left its weights.

In a re-search so is a head of the champion's configuration, on the images that the champion knew: on these the
candidates are compared with it, several times as many as validation has of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from safetensors.torch import load as load_tensors

from autovision.features.compute import OutOfTime
from autovision.metrics import Ints
from autovision.records.models import Confirmation
from autovision.records.trials import TrialResult
from autovision.search.finishing.court import Court
from autovision.search.finishing.judge import Worth
from autovision.search.finishing.refit import epochs_of
from autovision.search.finishing.robust import usual_loss
from autovision.search.multiobjective.objectives import pareto_front
from autovision.search.select import rank
from autovision.search.stopping import noise_of
from autovision.space.config import TrialConfig
from autovision.trial import folds
from autovision.trial.tasting import Tasting

MOST = 8
"""trials that are judged once more"""
_OF_ANY = 4
"""of these, the best ones; the others are the best of other features"""
LOADING_S = 3.0
"""of a backbone, and of its features"""
_FOLD_S = 0.4
_STANDARD_ERRORS = 4
"""a trial that is so far behind is not judged; of half a standard error each, as `stopping.noise_of` has it"""


@dataclass(frozen=True)
class Confirmed:
    """What came of it.

    Attributes:
        best: the trial to go on with.
        judged: every trial that was judged once more, the best first; none: it was not done.
        note: why it was not done, or what came of it; None: there was nothing to do.
    """

    best: TrialResult
    judged: tuple[Confirmation, ...] = ()
    note: str | None = None


def candidates(
    ledger: Sequence[TrialResult], images: int, expected: Mapping[str, float] | None = None
) -> list[TrialResult]:
    """Heads that may be the best, the most likely first: the best of any features, and the best of other ones.

    Args:
        images: of validation, which say how large a difference is noise.
        expected: trial -> what is expected of offering it, where that is not its value.
    """

    def worth(result: TrialResult) -> float:
        return (expected or {}).get(result.trial, result.value or 0.0)

    heads = [
        result
        for result in ledger
        if result.value is not None
        and result.weights_key is not None
        and folds.can_be(TrialConfig.model_validate(result.config))
    ]
    if not heads:
        return []
    heads.sort(key=lambda result: (-worth(result), *rank(result)[1:]))
    top = worth(heads[0])
    near = [r for r in heads if top - worth(r) <= _STANDARD_ERRORS * noise_of(top, images)]
    found, seen = near[:_OF_ANY], {_features(result) for result in near[:_OF_ANY]}
    for result in near[_OF_ANY:]:
        if _features(result) not in seen and len(found) < MOST:
            seen.add(_features(result))
            found.append(result)
    return found


def seconds(head_s: float) -> float:
    """Of judging one head once more, that takes so long to train: without loading its backbone."""
    return (folds.FOLDS - 1) * head_s + folds.FOLDS * _FOLD_S


def confirm(
    court: Court,
    best: TrialResult,
    ledger: Sequence[TrialResult],
    head_s: Callable[[TrialConfig], float],
    deadline: float,
    left_s: float,
    expected: Mapping[str, float] | None = None,
) -> Confirmed:
    """Judge the best heads once more; of a search for several objectives those of its front, which the model is on.

    A best trial that is no head stays the best if its lead on validation outweighs what the confirmed head gained.

    Args:
        head_s: seconds that training a head is predicted to take.
        deadline: seconds since the epoch.
        left_s: seconds until then.
        expected: trial -> what is expected of offering it by validation, where that is not its value.
    """
    request, splits = court.request, court.splits
    eligible = pareto_front(request.objectives, ledger) if request.objectives else ledger
    usable = candidates(eligible, len(splits.validation), expected)
    if len(usable) < 2:
        return Confirmed(best)
    champion = court.trained_config()
    found = _affordable(usable, head_s, left_s - (seconds(head_s(champion)) if champion else 0.0))
    if champion is not None and len(found) < 2:
        champion, found = None, _affordable(usable, head_s, left_s)
    if len(found) < 2:
        return Confirmed(
            best, note=f"the best trials were not judged once more: {left_s:.0f} s are left for it"
        )
    try:
        worths, images = _worths(court, found, deadline, with_champion=champion is not None)
    except OutOfTime:
        return Confirmed(best, note="the best trials were not judged once more: there was no time to end it")
    judged = [Judged(result, worth) for result, worth in zip(found, worths, strict=True) if worth is not None]
    if len(judged) < 2:
        return Confirmed(best)
    judged.sort(key=lambda each: (-each.worth.expected, -(each.result.value or 0.0), each.result.trial))
    compared = court.champion is not None
    ranked = tuple(each.confirmation(compared=compared) for each in judged)
    winner = judged[0].result
    note = f"{len(ranked)} heads were judged once more, on {images:,} images"
    if not folds.can_be(TrialConfig.model_validate(best.config)):
        # It was not judged once more: its lead on validation is added to what the best head there was confirmed with.
        def on_validation(result: TrialResult) -> float:
            return (expected or {}).get(result.trial, result.value or 0.0)

        first = max(judged, key=lambda each: on_validation(each.result))
        lead = on_validation(best) - on_validation(first.result)
        if first.worth.expected + lead >= judged[0].worth.expected:
            note += f": {best.trial}, which cannot be, stays the best by its lead on validation"
            return Confirmed(best, ranked, note)
    if winner.trial != best.trial:
        note += f": {winner.trial} is better there than {best.trial}, which is the best on validation alone"
    return Confirmed(winner, ranked, note)


def _affordable(
    usable: Sequence[TrialResult], head_s: Callable[[TrialConfig], float], left_s: float
) -> list[TrialResult]:
    """Those that there is time for, the first ones first."""
    found: list[TrialResult] = []
    predicted, backbones = 0.0, set[object]()
    for result in usable:
        config = TrialConfig.model_validate(result.config)
        backbone = (config.backbone, config.weights, config.resolution)
        own = seconds(head_s(config)) + (0.0 if backbone in backbones else LOADING_S)
        if predicted + own <= left_s:
            predicted += own
            backbones.add(backbone)
            found.append(result)
    return found


@dataclass(frozen=True)
class Judged:
    """A trial, and what it is worth on train and validation together."""

    result: TrialResult
    worth: Worth

    def confirmation(self, *, compared: bool) -> Confirmation:
        """As it is stored; `compared`: with a champion."""
        found = Confirmation(
            trial=self.result.trial, value=self.result.value or 0.0, confirmed=self.worth.value
        )
        if not compared:
            return found
        return found.with_(expected=self.worth.expected, chance=self.worth.chance, at_risk=self.worth.at_risk)


def _worths(
    court: Court, found: Sequence[TrialResult], deadline: float, *, with_champion: bool
) -> tuple[list[Worth | None], int]:
    """Of each trial, on train, where others judge each image than were trained on it, and validation together.

    And on how many images. Of train only the folds that there was time for; likewise of the champion.
    """
    bench, splits = court.bench, court.splits
    configs = [TrialConfig.model_validate(result.config) for result in found]
    epochs = [epochs_of(result, court.request.metric) for result in found]
    trained = folds.cross_validated(bench, splits, configs, epochs, court.request.seed, deadline)
    judge = (court.cross_validated(deadline) if with_champion else court).everything
    clean: list[Worth | None] = []
    spoilt: list[Worth | None] = []
    images = 0
    for result, config, train in zip(found, configs, trained, strict=True):
        if train is None:
            clean.append(None)
            spoilt.append(None)
            continue
        key = result.weights_key or ""
        tensors = load_tensors(bench.store.get(key).data)
        logits = np.concatenate([train, Tasting(bench, splits.validation, config).logits(tensors)])
        rows: Ints = np.flatnonzero(~np.isnan(logits[:, 0]) | (np.arange(len(logits)) >= len(train)))
        own, said = judge.only(rows), court.probabilities(logits[rows])
        more = court.chances(key, config, deadline)
        clean.append(own.worth(said))
        spoilt.append(own.worth(said, more=more) if more else None)
        images = len(rows)
    return alike(clean, spoilt), images


def alike(clean: Sequence[Worth | None], spoilt: Sequence[Worth | None]) -> list[Worth | None]:
    """Worths with what corruptions leave; where that is unknown, they are taken to leave as much as of the others."""
    both = [(one, two) for one, two in zip(clean, spoilt, strict=True) if one is not None and two is not None]
    lost = usual_loss([one.expected - two.expected for one, two in both])
    return [
        two or (one and replace(one, expected=one.expected - lost))
        for one, two in zip(clean, spoilt, strict=True)
    ]


def _features(result: TrialResult) -> tuple[object, ...]:
    config = TrialConfig.model_validate(result.config)
    return (
        config.backbone,
        config.weights,
        config.resolution,
        config.augmentation,
        config.test_time_augmentation,
    )
