"""What a candidate is worth where a champion serves: its value, less what is lost if the gates refuse it.

A re-search that ranks by old and new images together finds what is good on both, and now and then what the gates of
promotion must refuse: it is better on the new images by what it lost on the old ones. Then nothing is gained at all, as
the champion stays. So each candidate is worth what is to be expected of offering it,

    expected = value - (1 - chance) * gain

where `gain` is by how much its value is above the champion's on the same images (0 where it is not), and `chance` that
of the gates to let it pass, by the images that the champion knew: all of them, those of each class, those of each
declared subgroup, and of these the part that is most at risk. No candidate is cut off for an estimate that a few images
make, and none is chosen for it: what few images say moves the chance little (`significance.chance_not_worse`).

Of the test split only the numbers of images are looked at, for they say how sharply the gates see.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from autovision.decisions import Measure, by_costs
from autovision.metrics import Floats, Ints, Mask, answers, members, neg_log_loss, right
from autovision.significance import chance_not_worse
from autovision.trial.execution import value_of

_JACKKNIFE = 20
"""parts that are left out in turn, for the error of a metric that is no share of images"""


@dataclass(frozen=True)
class Part:
    """Some of the images that the champion knew.

    Attributes:
        name: for people to read.
        rows: (N,) which images they are.
        column: of the class whose recall is looked at; None: the metric itself.
        held_out: how many of these the test split has.
    """

    name: str
    rows: Mask
    column: int | None
    held_out: int


@dataclass(frozen=True)
class Worth:
    """What came of judging a candidate.

    Attributes:
        value: what trials are ranked by.
        expected: the same, less what is lost if the gates refuse it.
        chance: that they do not; 1 where nothing is known of the champion.
        at_risk: the part where it is the lowest, and what is seen there; empty where nothing is known.
    """

    value: float
    expected: float
    chance: float = 1.0
    at_risk: str = ""


@dataclass(frozen=True)
class Judge:
    """Judges what is said of N images, or of some of them.

    Attributes:
        truth: (N,) or (N, C) labels.
        repeats: (N,) how many images each counts as.
        champion: (N, C) probabilities by the champion, of images that it was not trained on; NaN where these are not
            known; None: there is no champion.
        champion_decided: (N, C) scores of which its answers follow; None: the probabilities.
        parts: of the images that it knew.
        margin: so much worse is still equal to the gates.
    """

    measure: Measure
    truth: Ints
    repeats: Ints
    positive: int | None = None
    champion: Floats | None = None
    champion_decided: Floats | None = None
    parts: Sequence[Part] = ()
    margin: float = 0.03

    def only(self, rows: Ints) -> Judge:
        """The same for the images of these numbers."""
        return replace(
            self,
            truth=self.truth[rows],
            repeats=self.repeats[rows],
            champion=_of(self.champion, rows),
            champion_decided=_of(self.champion_decided, rows),
            parts=[replace(part, rows=part.rows[rows]) for part in self.parts],
        )

    def value(self, p: Floats, decided: Floats | None = None) -> float:
        """That by which trials are ranked, of probabilities (N, C); minus infinity where it is undefined.

        Args:
            decided: scores (N, C) of which the answers follow; None: the probabilities.
        """
        again = np.repeat(np.arange(len(p)), self.repeats)
        said, y = p[again], self.truth[again]
        if not np.isfinite(said).all():
            return -math.inf
        by = _of(decided, again)
        found = {
            self.measure.name: self.measure(said, y, self.positive, by),
            "neg_log_loss": neg_log_loss(said, y),
        }
        value = value_of(found, self.measure.name)
        return value if math.isfinite(value) else -math.inf

    def worth(self, p: Floats, decided: Floats | None = None) -> Worth:
        """What a candidate is worth that says probabilities (N, C); `decided` as in `value`."""
        value = self.value(p, decided)
        if self._seen is None or not math.isfinite(value):
            return Worth(value, value)
        rows, before, judge = self._seen
        said, by = p[rows], _of(decided, rows)
        chances = [found for part in judge.parts if (found := judge._chance(part, said, by)) is not None]
        if not chances:
            return Worth(value, value)
        chance, at_risk = min(chances)
        gain = max(0.0, judge.value(said, by) - before)
        return Worth(value, value - (1 - chance) * gain, chance, at_risk)

    @cached_property
    def _seen(self) -> tuple[Ints, float, Judge] | None:
        """The images of which it is known what the champion says, its value there, and the judge of these alone."""
        if self.champion is None:
            return None
        rows = np.flatnonzero(~np.isnan(self.champion).any(1))
        judge = self.only(rows)
        before = judge.value(self.champion[rows], judge.champion_decided) if len(rows) else math.nan
        return (rows, before, judge) if math.isfinite(before) else None

    def _chance(self, part: Part, p: Floats, decided: Floats | None) -> tuple[float, str] | None:
        """That the gates let the candidate pass on a part, and what is seen there; None: nothing is."""
        n = int(part.rows.sum())
        if not n or not part.held_out:
            return None
        what = "recall" if part.column is not None else self.measure.name
        found = self._by_metric(part, p, decided) if what not in ("recall", "accuracy") else None
        if found is None:
            assert self.champion is not None
            before = self._rights(part, self.champion, self.champion_decided)
            after = self._rights(part, p, decided)
            found = float(before.mean()), float(after.mean()), _paired_error(before, after)
            what = "recall" if part.column is not None else "accuracy"
        old, new, error = found
        noise = error * math.sqrt(n / part.held_out)
        chance = chance_not_worse(new - old, error, noise, self.margin)
        return chance, f"{what.replace('_', ' ')} on {part.name} {old:.3f} to {new:.3f} ({n} images)"

    def _rights(self, part: Part, p: Floats, decided: Floats | None) -> Mask:
        """(n,) which images of a part are right; of a class, whether it is among the answers."""
        if decided is None:
            decided = p if self.measure.costs is None else by_costs(p, self.measure.costs)
        y, said = self.truth[part.rows], decided[part.rows]
        if part.column is None:
            return right(said, y)
        found: Mask = answers(said, y)[:, part.column]
        return found

    def _by_metric(self, part: Part, p: Floats, decided: Floats | None) -> tuple[float, float, float] | None:
        """The metric of champion and candidate on a part, and the error of their difference; None: it is undefined.

        By leaving out a twentieth of the images in turn (the delete-a-group jackknife, Kott 2001).
        """
        champion, rows = self.champion, np.flatnonzero(part.rows)
        assert champion is not None

        def both(at: Ints) -> tuple[float, float]:
            y = self.truth[at]
            return (
                self.measure(champion[at], y, self.positive, _of(self.champion_decided, at)),
                self.measure(p[at], y, self.positive, _of(decided, at)),
            )

        old, new = both(rows)
        groups = np.arange(len(rows)) % min(_JACKKNIFE, len(rows))
        count = int(groups.max()) + 1
        if count < 2:
            return None
        left = np.array([after - before for before, after in (both(rows[groups != g]) for g in range(count))])
        if not np.isfinite([old, new, *left]).all():
            return None
        error = math.sqrt((count - 1) / count * float(((left - left.mean()) ** 2).sum()))
        return old, new, error


def _of(said: Floats | None, rows: Ints) -> Floats | None:
    return None if said is None else said[rows]


def _paired_error(before: Mask, after: Mask) -> float:
    """The standard error of the difference of two paired shares, with one image more on which they differ.

    So two models that never disagree on a few images are not taken to be the same on all.
    """
    n, differ = len(before), int((before != after).sum())
    difference = float(after.mean() - before.mean())
    return math.sqrt(max((differ + 1) / (n + 1) - difference**2, 1 / (n + 1)) / n)


def parts_of(
    truth: Ints, old: Mask, held_out: Ints, groups: Mapping[str, tuple[Mask, int]], classes: Sequence[str]
) -> list[Part]:
    """The parts that the gates look at, of the images that the champion knew.

    Args:
        truth: (N,) or (N, C) labels.
        old: (N,) which images the champion knew.
        held_out: (M,) or (M, C) labels of the images that it knew in the test split.
        groups: subgroup -> (N,) which images are in it, and how many of the test split that the champion knew.
    """
    found = [Part("what it knew", old, None, len(held_out))]
    for name, (mask, count) in groups.items():
        if (mask & old).any() and (old & ~mask).any():
            found.append(Part(name, mask & old, None, count))
    has, of_class = members(truth, len(classes)), members(held_out, len(classes))
    return [
        *found,
        *(
            Part(name, has[:, column] & old, column, int(of_class[:, column].sum()))
            for column, name in enumerate(classes)
        ),
    ]
