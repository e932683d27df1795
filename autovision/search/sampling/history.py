"""What a sampler was told: every trial while there are few, later the ones that say most. Pure.

A sampler's work grows with what it looks at. So no more than `MOST` trials are kept: the best, by which good points are
known; the latest, which say where the search is now; and a sample of all others, evenly spread over the search, by
which is known what is bad. Who is kept follows from the trials alone (and, with several objectives, where "the best"
depends on who else is there, on the order in which they ended), so that the same ledger leaves the same history.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from autovision.search.multiobjective import pareto
from autovision.search.sampling.coordinates import Row

MOST = 320
KEEP = (96, 96, 64)
"""how many of the best, of the latest and of the others are left, whenever there are more than `MOST`"""
_SCATTER = 2_654_435_761
"""2³² divided by the golden ratio: multiples of it, modulo 2³², are spread evenly (Knuth, vol. 3, 6.4)"""


@dataclass(frozen=True)
class Told:
    """A trial that ended.

    Attributes:
        values: of each objective, more is better; empty: it failed.
        steps: each rung and the main objective there.
        whole: whether it ran to its end; otherwise it was cut, and its values are those of its last rung.
        attributes: what an Optuna sampler noted down with it.
    """

    number: int
    point: Mapping[str, Any]
    row: Row
    values: tuple[float, ...] = ()
    steps: tuple[tuple[int, float], ...] = ()
    whole: bool = True
    attributes: Mapping[str, Any] = field(default_factory=dict)


def by_merit(told: Sequence[Told]) -> list[Told]:
    """Those that have values, the best first; of several objectives by front, and the most alone in it first.

    Whoever was cut comes after all that were not, and among its like before those that were cut sooner, as Optuna's
    estimator has it.
    """
    whole = [each for each in told if each.values and each.whole]
    cut = [each for each in told if each.values and not each.whole]
    levels: dict[int, list[Told]] = {}
    for each in cut:
        levels.setdefault(each.steps[-1][0] if each.steps else -1, []).append(each)
    groups = [whole, *(levels[level] for level in sorted(levels, reverse=True))]
    return [each for group in groups for each in _ordered(group)]


def _ordered(told: Sequence[Told]) -> list[Told]:
    if told and len(told[0].values) > 1:
        return [told[i] for i in pareto.order(pareto.points_of([each.values for each in told]))]
    return sorted(told, key=lambda each: -each.values[0])


@dataclass
class History:
    """What is kept of the trials that ended."""

    most: int = MOST
    keep: tuple[int, int, int] = KEEP
    _known: dict[int, Told] = field(default_factory=dict)

    def add(self, told: Told) -> None:
        """Of a trial that is added again the last word counts."""
        self._known[told.number] = told
        if len(self._known) > self.most:
            self._known = {each.number: each for each in self.kept}

    @property
    def kept(self) -> list[Told]:
        """In the order of their numbers.

        Which they are does not depend on when the others were forgotten: the best and the latest of all are the best
        and the latest of what was kept with whatever came since, and so it is with the sample.
        """
        known = sorted(self._known.values(), key=lambda each: each.number)
        return known if len(known) <= sum(self.keep) else thinned(known, *self.keep)


def thinned(told: Sequence[Told], best: int, latest: int, others: int) -> list[Told]:
    """So many of each kind, in their order."""
    chosen = {each.number for each in (*by_merit(told)[:best], *told[len(told) - latest :])}
    left = sorted(
        (each.number for each in told if each.number not in chosen),
        key=lambda number: number * _SCATTER % 2**32,
    )
    chosen |= set(left[:others])
    return [each for each in told if each.number in chosen]
