"""Two models' predictions for the same images: what gates look at, and what they say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from autovision.decisions import Measure
from autovision.errors import InvalidInput
from autovision.metrics import Floats, Ints, Mask, checked, members, right
from autovision.significance import bootstrap_difference


@dataclass(frozen=True)
class Paired:
    """Predictions of champion and challenger for the same held-out images, in the same columns.

    Raises `InvalidInput` where the arrays do not fit each other. A champion that does not know a class
    has zeros in its column.
    """

    labels: Ints
    """(N,), or (N, C) zeros and ones where an image may have any number of classes"""
    champion: Floats | None
    """(N, C) probabilities; None: nothing is served yet"""
    challenger: Floats
    """(N, C)"""
    groups: Mapping[str, Mask] = field(default_factory=dict)
    """subgroup -> (N,) which images belong to it"""
    ungrouped: str | None = None
    """why declared subgroups are not among `groups`"""
    classes: tuple[str, ...] = ()
    """names of the columns; empty: their numbers"""
    positive: int | None = None
    """column of the positive class, for the metrics that have one"""
    champion_scores: Floats | None = None
    """(N, C) by its decision rule (see `autovision.decisions`); None: the probabilities"""
    challenger_scores: Floats | None = None
    """the same"""
    costs: Floats | None = None
    """(C, C) of answering the column where the row is true, for the metric `neg_mean_cost`"""
    unknown: tuple[int, ...] = ()
    """columns of classes that the champion does not know"""

    def __post_init__(self) -> None:
        challenger, labels = checked(self.challenger, self.labels)
        object.__setattr__(self, "labels", labels)
        object.__setattr__(self, "challenger", challenger)
        n_classes = challenger.shape[1]
        object.__setattr__(self, "classes", self.classes or tuple(str(c) for c in range(n_classes)))
        if len(self.classes) != n_classes:
            raise InvalidInput(f"{len(self.classes)} classes are named for {n_classes} columns")
        if self.champion is not None:
            champion, _ = checked(self.champion, labels)
            if champion.shape != challenger.shape:
                raise InvalidInput(
                    f"the champion's predictions are {champion.shape}, the challenger's {challenger.shape}; "
                    "bring both to the challenger's classes"
                )
            object.__setattr__(self, "champion", champion)
        for name in ("champion_scores", "challenger_scores"):
            if (decided := getattr(self, name)) is not None:
                object.__setattr__(self, name, checked(decided, labels)[0])
        for name, mask in self.groups.items():
            if np.shape(mask) != labels.shape[:1] or np.asarray(mask).dtype != np.bool_:
                raise InvalidInput(f"the subgroup {name!r} is not a mask over the {len(labels)} images")

    def only(self, mask: Mask) -> Paired:
        """The same for the images in `mask`."""
        champion, champion_scores, challenger_scores = (
            None if of is None else of[mask]
            for of in (self.champion, self.champion_scores, self.challenger_scores)
        )
        return Paired(
            self.labels[mask],
            champion,
            self.challenger[mask],
            classes=self.classes,
            positive=self.positive,
            champion_scores=champion_scores,
            challenger_scores=challenger_scores,
            costs=self.costs,
            unknown=self.unknown,
        )

    @property
    def known(self) -> Mask:
        """(N,) which images have none of the classes that are new to the champion."""
        new: Mask = np.asarray(members(self.labels, len(self.classes))[:, list(self.unknown)].any(1))
        return ~new

    @property
    def said_by_challenger(self) -> Floats:
        """(N, C) scores of which its answers follow."""
        return self.challenger if self.challenger_scores is None else self.challenger_scores


@dataclass(frozen=True)
class GateResult:
    """One gate's verdict."""

    name: str
    passed: bool
    reason: str
    """a clause with numbers"""
    numbers: dict[str, Any]


# ------------------------------------------------------------------------------------- what gates ask


def champion_of(paired: Paired) -> Floats:
    if paired.champion is None:
        raise InvalidInput("there is no champion to compare with; ask beats_majority instead")
    return paired.champion


def said_by_champion(paired: Paired) -> Floats:
    champion = champion_of(paired)
    return champion if paired.champion_scores is None else paired.champion_scores


def rights(paired: Paired) -> tuple[Mask, Mask]:
    """(N,) each: which images champion and challenger get right."""
    return right(said_by_champion(paired), paired.labels), right(paired.said_by_challenger, paired.labels)


def values(paired: Paired, metric: str) -> tuple[float, float]:
    """The metric of champion and challenger."""
    measure = Measure(metric, paired.costs)
    before, after = (
        measure(probabilities, paired.labels, paired.positive, decided)
        for probabilities, decided in (
            (champion_of(paired), said_by_champion(paired)),
            (paired.challenger, paired.said_by_challenger),
        )
    )
    return before, after


def defined(paired: Paired, metric: str) -> bool:
    return bool(np.isfinite(values(paired, metric)).all())


def differences(paired: Paired, metric: str) -> Floats:
    if not defined(paired, metric):
        raise undefined(paired, metric)
    measure = Measure(metric, paired.costs)
    champion, challenger = (
        (said_by_champion(paired), paired.said_by_challenger)
        if measure.decides
        else (champion_of(paired), paired.challenger)
    )
    return bootstrap_difference(
        champion,
        challenger,
        paired.labels,
        lambda said, labels: measure(said, labels, paired.positive, said),
    )


def undefined(paired: Paired, metric: str) -> InvalidInput:
    has = members(paired.labels, len(paired.classes))
    seen = [paired.classes[label] for label in np.flatnonzero(has.any(0))]
    return InvalidInput(
        f"{metric} is undefined on the {len(paired.labels)} held-out images, which show only "
        f"{', '.join(seen)}; gate by accuracy, or hold out images of every class"
    )


def spoken_metric(metric: str) -> str:
    return metric.replace("_", " ").replace("@", " at ").replace("=", " ")
