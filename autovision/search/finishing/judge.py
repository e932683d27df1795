"""What a candidate is worth where a champion serves: its value, less what is lost if the gates refuse it.

A re-search that ranks by old and new images together finds what is good on both, and now and then what the gates of
promotion must refuse: it is better on the new images by what it lost on the old ones. Then nothing is gained at all, as
the champion stays. So each candidate is worth what is to be expected of offering it,

    expected = value - (1 - chance) * gain

where `gain` is by how much its value is above the champion's on the same images (0 where it is not), and `chance` that
of the gates not to refuse it for a loss, by what they look at: all images whose classes the champion knows, each of
these classes (its recall, or else its F1), each declared subgroup, and of these the part that is most at risk. No
candidate is cut off for an estimate that a few images make, and none is chosen for it: what few images say moves the
chance little (`significance.chance_not_worse`).

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
from autovision.significance import chance_better, chance_not_worse, f1_change
from autovision.trial.execution import value_of

_JACKKNIFE = 20
"""parts that are left out in turn, for the error of a metric that is no share of images"""


@dataclass(frozen=True)
class Part:
    """What one gate looks at, of the images whose classes the champion knows.

    Attributes:
        name: for people to read.
        rows: (N,) which images they are.
        column: of the class whose recall is looked at, and whose F1 where that is lost; None: the metric itself.
        held_out: how many such images the test split has.
        of_class: how many of these have that class.
    """

    name: str
    rows: Mask
    column: int | None
    held_out: int
    of_class: int = 0


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
        parts: what the gates look at.
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

    def worth(
        self, p: Floats, decided: Floats | None = None, *, more: Sequence[tuple[float, str]] = ()
    ) -> Worth:
        """What a candidate is worth that says probabilities (N, C); `decided` as in `value`.

        Args:
            more: chances that other gates let it pass, and what is seen there.
        """
        value = self.value(p, decided)
        if self._seen is None or not math.isfinite(value):
            return Worth(value, value)
        rows, before, judge = self._seen
        said, by = p[rows], _of(decided, rows)
        chances = [found for part in judge.parts if (found := judge._chance(part, said, by)) is not None]
        chances += more
        if not chances:
            return Worth(value, value)
        chance, at_risk = min(chances)
        gain = max(0.0, judge.value(said, by) - before)
        return Worth(value, value - (1 - chance) * gain, chance, at_risk)

    def answering(self, p: Floats) -> Floats:
        """(N, C) scores of which answers follow, of probabilities (N, C), where no decision rule is chosen yet."""
        return p if self.measure.costs is None else by_costs(p, self.measure.costs)

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
        if part.column is not None:
            return self._chance_of_class(part, part.column, p, decided)
        what, found = self.measure.name, None
        if what != "accuracy":
            found = self._by_metric(part, p, decided)
        if found is None:
            assert self.champion is not None
            y = self.truth[part.rows]
            before = right(self._decided(part, self.champion, self.champion_decided), y)
            after = right(self._decided(part, p, decided), y)
            what, found = (
                "accuracy",
                (float(before.mean()), float(after.mean()), paired_error(before, after)),
            )
        old, new, error = found
        noise = error * math.sqrt(n / part.held_out)
        chance = chance_not_worse(new - old, error, noise, self.margin)
        return chance, f"{what.replace('_', ' ')} on {part.name} {old:.3f} to {new:.3f} ({n} images)"

    def _chance_of_class(
        self, part: Part, column: int, p: Floats, decided: Floats | None
    ) -> tuple[float, str] | None:
        """The same of a class, where the gate forgives a loss of recall that a gain of F1 makes up for."""
        assert self.champion is not None
        y = self.truth[part.rows]
        of_class = members(y, p.shape[1])[:, column]
        n = int(of_class.sum())
        if not n or not part.of_class:
            return None
        before, after = (
            answers(self._decided(part, *said), y)[:, column]
            for said in ((self.champion, self.champion_decided), (p, decided))
        )
        old, new = (float(said[of_class].mean()) for said in (before, after))
        error = paired_error(before[of_class], after[of_class])
        chance = chance_not_worse(new - old, error, error * math.sqrt(n / part.of_class), self.margin)
        if new < old:
            gain, error = f1_change(of_class, before, after)
            noise = error * math.sqrt(len(y) / part.held_out)
            chance = max(chance, chance_better(gain, error, noise, self.margin))
        return chance, f"recall on {part.name} {old:.3f} to {new:.3f} ({n} images)"

    def _decided(self, part: Part, p: Floats, decided: Floats | None) -> Floats:
        """(n, C) scores of a part's images, of which the answers follow."""
        return (self.answering(p) if decided is None else decided)[part.rows]

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


def paired_error(before: Mask, after: Mask) -> float:
    """The standard error of the difference of two paired shares, with one image more on which they differ.

    So two models that never disagree on a few images are not taken to be the same on all.
    """
    n, differ = len(before), int((before != after).sum())
    difference = float(after.mean() - before.mean())
    return math.sqrt(max((differ + 1) / (n + 1) - difference**2, 1 / (n + 1)) / n)


def parts_of(
    known: Mask, held_out: Ints, groups: Mapping[str, tuple[Mask, int]], classes: Sequence[str]
) -> list[Part]:
    """What the gates look at.

    Args:
        known: (N,) of which images the champion knows all classes.
        held_out: (M,) or (M, C) labels of such images of the test split.
        groups: subgroup -> (N,) which images are in it, and how many such images of the test split.
    """
    found = [Part("all images", known, None, len(held_out))]
    for name, (mask, count) in groups.items():
        if (mask & known).any() and (known & ~mask).any():
            found.append(Part(name, mask & known, None, count))
    of_class = members(held_out, len(classes)).sum(0)
    return [
        *found,
        *(
            Part(name, known, column, len(held_out), int(of_class[column]))
            for column, name in enumerate(classes)
        ),
    ]
