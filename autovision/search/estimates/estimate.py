"""What a budget buys, said before it is spent: from arithmetic, and from what was measured on nodes of this kind."""

from __future__ import annotations

from dataclasses import dataclass

from autovision.search.constraints.limits import values_of
from autovision.search.costing.cost import Cost, CostModel
from autovision.search.estimates.prices import money
from autovision.space import Space
from autovision.space.config import TrialConfig

_START_S = 8.0
"""Ray, and processes that have loaded PyTorch"""
_HELP = 0.8
"""what a second CPU adds where several compute the same features"""
_SURE = 0.5
"""of the seconds that a prediction rests on measurements, before it is said to do so"""


@dataclass(frozen=True)
class Range:
    """A figure, and the interval that four of five should lie in."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{_brief(self.value)} [{_brief(self.low)}, {_brief(self.high)}]"


def _brief(value: float) -> str:
    return f"{value:.1f}" if 0 < value < 9.95 else f"{value:,.0f}"


@dataclass(frozen=True)
class FeatureSet:
    """The features that trials of one backbone at one resolution begin with: of the images as they are.

    Attributes:
        seconds: to compute what is missing of them; 0: nothing is.
        fits: whether they can be computed within the budget, after those of all sets before this one.
    """

    backbone: str
    resolution: int | None
    seconds: Range
    fits: bool


@dataclass(frozen=True)
class Estimate:
    """What a budget buys.

    Attributes:
        cpus: trials at a time.
        node: the kind of node that the seconds hold for.
        measured: the share of the default's seconds that rests on measurements on such nodes; the rest is arithmetic.
        start_s, finish_s: before the first trial; and set aside for judging the best once more, training it again and
            evaluating it.
        first_s: until the space's default has its first value.
        features_s: of these: computing the default's features.
        heads: trained to the end, if only heads of the default's features were; None: the space has none.
        tuned: fine-tunings of the default to the end, instead of heads; None: the space has none.
        memory_mb: 10⁶ bytes that a trial takes at most: the default, or its fine-tuning; None: nobody asked.
        features: cheapest first.
        enough: whether there is likely to be a first value within the budget.
        per_hour: what the cluster costs; None: nobody gave prices.
    """

    budget_s: float
    cpus: int
    node: str
    measured: float
    start_s: float
    finish_s: float
    first_s: Range
    features_s: Range
    heads: Range | None
    tuned: Range | None
    memory_mb: float | None
    features: tuple[FeatureSet, ...]
    enough: bool
    per_hour: float | None = None
    currency: str = ""

    @property
    def basis(self) -> str:
        """What it rests on, in words."""
        if self.measured >= _SURE:
            return f"from what was measured on nodes of this kind ({self.node})"
        if self.measured > 0:
            return (
                f"in part from what was measured on nodes of this kind ({self.node}), in part from arithmetic"
            )
        return f"from arithmetic alone: nothing was measured on nodes of this kind yet ({self.node})"

    @property
    def cost(self) -> float | None:
        """Of the whole budget."""
        return None if self.per_hour is None else self.per_hour * self.budget_s / 3600

    @property
    def buys(self) -> str:
        """How many trials, in words."""
        kinds = {"heads": self.heads, "fine-tunings": self.tuned}
        return "about " + " or ".join(f"{each} {name}" for name, each in kinds.items() if each is not None)

    def __str__(self) -> str:
        """One line."""
        if not self.enough:
            what = (
                f"{self.budget_s:g} s are likely too few: a first value takes about {self.first_s} s; the search "
                "overruns its budget for it"
            )
        else:
            sets = f"{sum(each.fits for each in self.features)} of {len(self.features)}"
            what = (
                f"{self.budget_s:g} s buy {self.buys}; a first value takes {self.first_s} s, and "
                f"the features of {sets} backbones and resolutions can be computed"
            )
        cost = "" if self.cost is None else f"; all of it costs {money(self.cost, self.currency)}"
        return f"{what}{cost}; {self.basis}"


def estimate(
    cost: CostModel,
    space: Space,
    budget_s: float,
    *,
    cpus: int,
    finish_s: float,
    left_out: frozenset[str] = frozenset(),
    per_hour: float | None = None,
    currency: str = "",
    memory: bool = False,
) -> Estimate:
    """What a budget buys of a space.

    Args:
        cpus: trials at a time.
        finish_s: what is set aside for finishing the best.
        left_out: backbones that cannot be used here.
        per_hour: what the cluster costs.
        memory: whether to count that, too, which takes a second.
    """
    default = space.config(space.default())
    if default.backbone in left_out:
        usable = [
            name
            for name in values_of(space.parameters.get("backbone"), default.backbone)
            if name not in left_out
        ]
        default = default.with_(backbone=usable[0], resolution=None) if usable else default
    head, tuned = _head(space, default), _tuned(space, default)
    kinds = [kind for kind in (head, tuned) if kind is not None] or [default]
    first = cost.predict(kinds[0])
    shared = 1 + _HELP * (cpus - 1)
    left = budget_s - _START_S - finish_s
    sets = _feature_sets(cost, space, default, left, shared, left_out)
    alone = _scaled(first, first.seconds - first.features_s + first.features_s / shared)
    first_s = Range(*(_START_S + seconds for seconds in (alone.value, alone.low, alone.high)))

    def number(kind: TrialConfig | None) -> Range | None:
        return None if kind is None else _number(cost.predict(kind, epochs=kind.epochs), left, cpus, shared)

    return Estimate(
        budget_s=budget_s,
        cpus=cpus,
        node=str(cost.kind),
        measured=first.measured,
        start_s=_START_S,
        finish_s=finish_s,
        first_s=first_s,
        features_s=_scaled(first, first.features_s / shared),
        heads=number(head),
        tuned=number(tuned),
        memory_mb=max(map(cost.memory_bytes, kinds)) / 1e6 if memory else None,
        features=sets,
        enough=first_s.value + finish_s <= budget_s,
        per_hour=per_hour,
        currency=currency,
    )


def _head(space: Space, default: TrialConfig) -> TrialConfig | None:
    """The default with nothing of its backbone trained, if the space has that."""
    trained = {name: getattr(default, name) for name in ("unfreeze", "adapters")}
    if all(0 in values_of(space.parameters.get(name), value) for name, value in trained.items()):
        return default.with_(unfreeze=0, adapters=0)
    return None


def _tuned(space: Space, default: TrialConfig) -> TrialConfig | None:
    """The default fine-tuned as little as the space has it."""
    if default.adapters:
        return default
    depths = [int(depth) for depth in values_of(space.parameters.get("unfreeze"), default.unfreeze) if depth]
    return default.with_(unfreeze=min(depths)) if depths else None


def _scaled(cost: Cost, seconds: float) -> Range:
    return Range(seconds, seconds * cost.low / cost.seconds, seconds * cost.high / cost.seconds)


def _number(cost: Cost, left_s: float, cpus: int, shared: float) -> Range:
    """How many trials of a kind to the end, after the features that they share."""

    def count(factor: float) -> float:
        rest = (cost.seconds - cost.features_s) * factor
        return max(0.0, left_s - cost.features_s * factor / shared) * cpus / max(rest, 1e-3)

    return Range(count(1.0), count(cost.high / cost.seconds), count(cost.low / cost.seconds))


def _feature_sets(
    cost: CostModel,
    space: Space,
    default: TrialConfig,
    left_s: float,
    shared: float,
    left_out: frozenset[str],
) -> tuple[FeatureSet, ...]:
    configs: dict[tuple[str, int | None], TrialConfig] = {}
    names = values_of(space.parameters.get("backbone"), default.backbone)
    resolutions = values_of(space.parameters.get("resolution"), default.resolution)
    for backbone in names:
        if backbone in left_out:
            continue
        for resolution in resolutions:
            own = _admitted(space, backbone, resolution)
            configs[backbone, own] = TrialConfig(backbone=backbone, weights=default.weights, resolution=own)
    found = []
    for (backbone, resolution), config in configs.items():
        predicted = cost.predict(config)
        found.append((backbone, resolution, _scaled(predicted, predicted.features_s / shared)))
    spent, sets = 0.0, []
    for backbone, resolution, seconds in sorted(found, key=lambda one: one[2].value):
        spent += seconds.value
        sets.append(FeatureSet(backbone, resolution, seconds, spent <= left_s))
    return tuple(sets)


def _admitted(space: Space, backbone: str, resolution: int | None) -> int | None:
    """The resolution; None, the backbone's own, where the space gives it to other backbones alone."""
    when = getattr(space.parameters.get("resolution"), "when", None) or {}
    return resolution if backbone in when.get("backbone", (backbone,)) else None
