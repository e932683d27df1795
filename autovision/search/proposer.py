"""Which configurations to try next: starting points first, then what promises the most improvement per second."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from autovision.search.arms import FEATURES, SHAPE, Arm, ArmRecord, arm_of
from autovision.search.beliefs import Beliefs, Scale, choose
from autovision.search.costing.cost import CostModel, config_of
from autovision.search.sampling.sampler import Proposal, Sampler
from autovision.search.warm import Start
from autovision.space import Choice, Constant, Space
from autovision.space.config import TrialConfig
from autovision.trial.data import views_of

_DRAWS = 20
"""so many draws in a row that were all tried before, break a limit, or take too long, mean that there is nothing
new to try"""
_START_SHARE = 0.25
_START_EXCESS = 1.5
"""a starting point is passed over if it is predicted to take more than this share of the seconds left, and than
so many times the cheapest arm"""
_BATCH_S = 4.0
"""heads are trained together for about so long: what they teach is known soon enough"""
_BATCH_SHARE = 0.25
"""of the seconds that are left, at most"""
_FRESH_S = 1.0
"""what a trial of an arm takes is predicted anew after so long"""
_EVERY_EPOCH = 8.0
"""views that an image counts as having which is augmented anew in every epoch"""
_REFUSED = 8
"""so many draws for a batch may come to nothing"""
_FIRST, _MOST = 16, 64
"""heads of a batch: of an arm's first at most, and of any"""
_DRAWING_S = 2.0
"""by the clock, that drawing a batch may take where a sampler is slow: meanwhile nobody is listened to"""


@dataclass(frozen=True)
class Drawn:
    """A configuration to try.

    Attributes:
        initial: a model whose head the trial starts from.
    """

    proposal: Proposal
    config: TrialConfig
    arm: Arm | None
    origin: str
    initial: str | None = None


@dataclass
class Proposer:
    """Draws what to try.

    Attributes:
        arms: what is known of each; none where the space has no arms.
        usable: whether a configuration may be tried at all.
        tried: digests of the configurations that were.
        best_head: the best head on an arm's features so far, as its resolved configuration.
        together: whether heads may be trained together.
        view: the arms as the next choice among them is to see them.
        more_s: seconds that finishing a configuration takes beyond what is set aside for the best so far.
        cost_aware: whether what an arm costs matters to the choice among them.
        noise: standard deviation of values that has nothing to do with how good a trial is.
    """

    space: Space
    sampler: Sampler
    cost: CostModel
    starts: list[Start]
    arms: dict[Arm, ArmRecord]
    usable: Callable[[TrialConfig], bool]
    tried: set[str]
    best_head: Callable[[Arm], TrialConfig | None] = lambda arm: None
    together: bool = True
    view: Callable[[Mapping[Arm, ArmRecord]], Mapping[Arm, ArmRecord]] = lambda arms: arms
    more_s: Callable[[TrialConfig], float] = lambda config: 0.0
    cost_aware: bool = True
    noise: Callable[[], float] = lambda: 0.0

    def __post_init__(self) -> None:
        self.starts = [start for start in self.starts if self.usable(self.space.config(start.point))]
        # The costs of all arms are asked for before every trial: what stands for each is made once.
        default = self.space.config(self.space.default()).model_dump()
        self._standard = {arm: config_of(arm, default) for arm in self.arms}
        self._beliefs = Beliefs(list(self.arms), self._scale) if self.arms else None
        self._predicted: dict[Arm, tuple[float, float]] = {}
        """how many seconds were left then, and how many it takes"""
        self._exhausted: set[Arm] = set()
        self._waiting: list[Drawn] = []
        self._inherited: set[Arm] = set()
        self._slower: list[float] = []
        """how much longer batches of heads took than by arithmetic"""
        self._remaining = self._left = math.inf
        """seconds, and infinity as long as time is no reason against anything; seconds"""
        self.out_of_time = False
        """whether the last draw was empty for lack of time"""
        self.all_tried = False
        """whether it was empty because nothing is left to try"""
        self._used_up: set[Arm] = set()
        """arms of which everything was tried"""

    def add_starts(self, starts: list[Start]) -> None:
        """Points to try next, after those that are waiting."""
        waiting = {self.space.config(start.point).digest for start in self.starts}
        for start in starts:
            config = self.space.config(start.point)
            if config.digest not in waiting and self.usable(config):
                self.starts.append(start)

    def learn_heads(self, seconds: float, configs: Sequence[TrialConfig]) -> None:
        """Heads that were trained together took so long, without features; nothing if they failed before that."""
        if seconds > 0:
            self._slower.append(seconds / sum(map(self.cost.head_s, configs)))

    def give_up(self, arm: Arm) -> None:
        """A trial of an arm was out of time before it had a value: so would others be."""
        self._exhausted.add(arm)

    def draw(self, remaining: float, most: int, *, first: bool) -> list[Drawn]:
        """One configuration, or heads to be trained together; empty if nothing fits any more, or nothing is new.

        Args:
            remaining: seconds left for trials.
            most: configurations at most.
            first: nothing has a value yet, so that time is no reason against anything.
        """
        self._remaining, self._left = math.inf if first else remaining, remaining
        self.out_of_time = self.all_tried = False
        while self._waiting:
            waiting = self._waiting.pop(0)
            if self._fits(waiting.config) and waiting.config.digest not in self.tried:
                return [self._take(waiting)]
            self.sampler.refuse(waiting.proposal.number)
        drawn = self._one(remaining)
        if drawn is None:
            return []
        if drawn.config.needs_maps or drawn.initial is not None or not self.together:
            return [drawn]
        untried = drawn.arm is not None and not self.arms[drawn.arm].seconds
        return self._with_companions(drawn, min(most, _FIRST if untried else _MOST))

    def _take(self, drawn: Drawn) -> Drawn:
        self.tried.add(drawn.config.digest)
        return drawn

    def _one(self, remaining: float) -> Drawn | None:
        """A configuration that was never tried."""
        while True:
            late, arm = 0, None
            for _ in range(_DRAWS):
                drawn = self._propose(remaining)
                if drawn is None:
                    return None
                arm = drawn.arm
                if drawn.config.digest not in self.tried and self.usable(drawn.config):
                    if self._fits(drawn.config):
                        return self._take(drawn)
                    late += 1
                self.sampler.refuse(drawn.proposal.number)
            self.out_of_time = self.out_of_time or late > 0
            if arm is None:
                self.all_tried = late == 0
                return None
            self._exhausted.add(arm)
            if late == 0:
                self._used_up.add(arm)

    def _fits(self, config: TrialConfig) -> bool:
        """Whether a trial can run to its end in the seconds that are left."""
        return self.cost.predicted_total_s(config) <= self._remaining

    def _propose(self, remaining: float) -> Drawn | None:
        arms = list(self.arms)
        start = self._affordable_start(remaining)
        if start is not None:
            arm = arm_of(start.point, arms)
            return self._drawn(start.point, arm, start.origin, start.initial_model)
        if self._beliefs is None:
            return self._drawn(None, None, "sampled")
        arm = choose(
            self._beliefs,
            self.view(self.arms),
            self._predicted_s if self.cost_aware else self._takes_long,
            remaining,
            lambda arm: self.more_s(self._standard[arm]),
            self.noise(),
        )
        if arm is None or arm in self._exhausted:
            self.out_of_time, self.all_tried = True, self._used_up.issuperset(arms)
            return None
        if (heir := self._heir(arm)) is not None:
            return self._drawn(heir, arm, "probe")
        first = not self.arms[arm].seconds and not self.arms[arm].running
        return self._drawn(dict(arm) | (self._usual_views(arm) if first else {}), arm, "sampled")

    def _usual_views(self, arm: Arm) -> dict[str, Any]:
        """Views that the first trials of an arm are judged under: the space's default, and not any that are drawn."""
        parameter = self.space.parameters.get("test_time_augmentation")
        if not isinstance(parameter, Choice):
            return {}
        values = dict(arm)
        if any(values.get(name) not in allowed for name, allowed in (parameter.when or {}).items()):
            return {}
        return {"test_time_augmentation": parameter.start()}

    def _drawn(
        self, fixed: dict[str, Any] | None, arm: Arm | None, origin: str, initial: str | None = None
    ) -> Drawn:
        proposal = self.sampler.ask(fixed)
        return Drawn(proposal, self.space.config(proposal.point), arm, origin, initial)

    def _heir(self, arm: Arm) -> dict[str, Any] | None:
        """What a first fine-tuning of an arm inherits: everything from the best head on the same backbone."""
        if arm in self._inherited or self.arms[arm].seconds or self.arms[arm].running:
            return None
        self._inherited.add(arm)
        standard = self._standard[arm]
        head = self.best_head(arm) if standard.needs_maps else None
        if head is None:
            return None
        values = {name: value for name, value in dict(arm).items() if name in TrialConfig.model_fields}
        return self.space.project(head.with_(**values, epochs=standard.epochs))

    def _affordable_start(self, remaining: float) -> Start | None:
        """The next starting point, unless it would eat much of the budget where something else would not."""
        standards = self._standard.values() if self.starts else ()
        cheapest = min(map(self.cost.predicted_s, standards), default=float("inf"))
        limit = max(_START_SHARE * remaining, _START_EXCESS * cheapest)
        while self.starts:
            start = self.starts.pop(0)
            config = self.space.config(start.point)
            # One that an earlier attempt has tried is not asked for: a draw that is refused turns those after it.
            if config.digest not in self.tried and self.cost.predicted_s(config) <= limit:
                return start
        return None

    def _predicted_s(self, arm: Arm) -> float:
        """Seconds until the next trial of an arm has a value, or the next batch of heads."""
        if arm in self._exhausted:
            return math.inf
        record = self.arms[arm]
        if record.seconds and not record.running:
            # Of heads there may be fewer in a batch, where little time is left.
            whole = statistics.median_low(record.seconds[-9:])
            return min(whole, max(_BATCH_SHARE * self._remaining, statistics.median_low(record.each_s[-9:])))
        at, seconds = self._predicted.get(arm, (math.inf, 0.0))
        if not 0.0 <= at - self._left < _FRESH_S:
            # To the end: what an arm may come to is what its trials end with.
            standard = self._standard[arm]
            seconds = self.cost.predicted_total_s(standard)
            # The first value of all comes as soon as any head does.
            if self.together and not standard.needs_maps and math.isfinite(self._remaining):
                others = (_FIRST - 1) * self._slower_than_arithmetic * self.cost.head_s(standard)
                seconds += min(_BATCH_S, others)
            self._predicted[arm] = self._left, seconds
        return seconds

    @property
    def _slower_than_arithmetic(self) -> float:
        """How much longer heads took that were trained together."""
        return statistics.median(self._slower[-5:]) if self._slower else 1.0

    def _takes_long(self, arm: Arm) -> float:
        """As if all took the same, but for whether there is anything left to try."""
        return math.inf if arm in self._exhausted else 1.0

    def _scale(self, arm: Arm) -> Scale:
        standard = self._standard[arm]
        views = views_of(standard).number or _EVERY_EPOCH
        return Scale(self.cost.gflops(standard), views)

    def _with_companions(self, first: Drawn, most: int) -> list[Drawn]:
        """A head with others of its shape that read the same features, as many as are trained in a few seconds.

        Heads of different shapes would be as many computations, and save nothing.
        """
        point = first.proposal.point
        alike: tuple[str, ...] = (*FEATURES, *SHAPE)
        if all(name in alike or isinstance(p, Constant) for name, p in self.space.parameters.items()):
            alike = FEATURES  # nothing else differs in this space
        fixed = {name: point[name] for name in alike if name in point}
        slower = self._slower_than_arithmetic
        found, seconds = [first], slower * self.cost.head_s(first.config)
        refused = 0
        enough_s = min(_BATCH_S, _BATCH_SHARE * self._remaining)
        began = time.monotonic()
        for start in self._starts_like(fixed):
            if len(found) < most and seconds < enough_s:
                self.starts.remove(start)
                found.append(self._take(self._drawn(start.point, first.arm, start.origin)))
                seconds += slower * self.cost.head_s(found[-1].config)
        while len(found) < most and seconds < enough_s and refused < _REFUSED:
            if time.monotonic() - began > _DRAWING_S:
                break
            drawn = self._drawn(fixed, first.arm, "sampled")
            if drawn.config.digest in self.tried or not self.usable(drawn.config):
                self.sampler.refuse(drawn.proposal.number)
                refused += 1
            elif drawn.config.needs_maps:
                self._waiting.append(drawn)
                refused += 1
            else:
                found.append(self._take(drawn))
                seconds += slower * self.cost.head_s(drawn.config)
        return found

    def _starts_like(self, fixed: Mapping[str, Any]) -> list[Start]:
        """The heads among the starting points that have these values."""
        return [
            start
            for start in self.starts
            if all(start.point.get(name) == value for name, value in fixed.items())
            and start.initial_model is None
            and not (config := self.space.config(start.point)).needs_maps
            and config.digest not in self.tried
        ]
