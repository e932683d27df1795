"""Many years at once: which retraining policy is better, where one year says little.

    python tests/benchmarks/bench_years.py --json bench-results/ --cache ~/.cache/bench-year --seeds 48

The policies of `bench_year.py` differ by less than its years do from each other, and one of those takes two minutes.
Here the same labels come in on the same days, of the same recorded cells, a search is the same regression, and
challengers are judged, and judged again on later labels, by the gates themselves; but nothing is stored and nobody
controls, which takes two seconds. A search begins where new labels are as many as the policy wants by volume, and
when the windows after the sudden shift are full if it has as many as it wants after an alarm; nightly at two o'clock
whenever a label is new. While Ray or the controller is gone none does.
"""

from __future__ import annotations

import os
import tempfile
import zlib
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from bench_year import kinds, recorded
from common import options, show, write_json
from scipy.stats import t as student

from autovision.promotion import later, refused
from autovision.promotion.comparison import Comparison
from autovision.promotion.gates.paired import Paired
from autovision.promotion.policy import decide
from autovision.promotion.refused import Refused
from autovision.records.datasets import Split
from autovision.records.deployments import Decision, DecisionKind, RetrainingPolicy, Verdict
from autovision.records.gates import GatePolicy
from autovision.testing.year import CLASSES, People, Plan, World
from autovision.testing.year.models import Answering
from autovision.testing.year.world import Arrived, at

GATES = GatePolicy(robustness_margin=None)
"""as in the year: there are no images that could be corrupted"""
LABELS_EVERY = 3
"""days, as in the year"""
WINDOW_DAYS = 3
"""from the sudden shift until a window of 100 is full, at 40 requests a day"""


@dataclass(frozen=True)
class Way:
    """A policy as far as it counts here."""

    min_labels: int = RetrainingPolicy().min_labels
    share: float = RetrainingPolicy().volume_share or 0.0
    nightly: bool = False
    again: bool = True
    """whether refused challengers are looked at again"""


WAYS = {
    "shipped": Way(),
    "50 labels, 10 %": Way(50, 0.1),
    "nightly": Way(nightly=True),
    "nightly, judged once": Way(nightly=True, again=False),
}

Labelled = dict[str, tuple[Arrived, str]]
"""image -> it, and what people say"""


@dataclass(frozen=True)
class Stream:
    """What comes in during a year."""

    world: World
    first: Labelled
    batches: dict[int, Labelled]
    """day -> images that all who spoke of them agree on by then for the first time"""


@cache
def stream(path: Path, seed: int, per_day: int, begins: int) -> Stream:
    world, people = World(kinds(path), Plan(), seed, first=begins), People(seed)
    first = {each.digest: (each, each.truth) for each in world.first_images()}
    sent: dict[str, Arrived] = {}
    words: dict[str, set[str]] = {}
    batches: dict[int, Labelled] = {}
    known: set[str] = set()
    for day in range(world.plan.days):
        for hour in (8.0, 16.0):
            for each in world.arrivals(day, per_day // 2):
                if day not in world.plan.store_down:
                    request = f"{len(sent):07d}"
                    sent[request] = each
                    people.see(request, each.truth, at(day, hour))
            if hour == 8.0 and day % LABELS_EVERY == 0 and day not in world.plan.store_down:
                for word in people.due(at(day, hour)):
                    words.setdefault(word.request_id, set()).add(str(word.label))
                agreed = {
                    sent[request].digest: (sent[request], next(iter(said)))
                    for request, said in words.items()
                    if len(said) == 1 and sent[request].digest not in known
                }
                known |= agreed.keys()
                batches[day] = agreed
    return Stream(world, first, batches)


def split(digest: str) -> Split:
    """Of an image, for good: in the shares of an import."""
    part = zlib.crc32(digest.encode()) / 2**32
    return Split.TEST if part < 0.25 else Split.VALIDATION if part < 0.4 else Split.TRAIN


@dataclass(eq=False)
class Model:
    """What was fitted, and to what."""

    answering: Answering
    known: frozenset[str]
    day: int
    first: Paired | None = None
    case: Refused | None = None


@dataclass
class Replay:
    """One year under one policy."""

    stream: Stream
    way: Way
    searches: int = 0
    promoted: list[int] = field(default_factory=list)
    """days"""
    accuracy: list[float] = field(default_factory=list)
    """of each day"""

    def __post_init__(self) -> None:
        self.labelled = dict(self.stream.first)
        self.learnt: frozenset[str] = frozenset(self.labelled)
        self.champion = self._fit(0)
        self.waiting: list[Model] = []
        self.alarm = False

    def live(self) -> None:
        plan, news = self.stream.world.plan, False
        for day in range(plan.days):
            idle = day in plan.controller_down or day in plan.store_down
            ready = not idle and day not in plan.ray_down
            if self.way.nightly and news and ready:
                self._search(day)
                news = False
            self.alarm |= day == plan.sudden + WINDOW_DAYS
            batch = self.stream.batches.get(day)
            if batch:
                self.labelled |= batch
                news = True
            if news and not idle and self.way.again:
                self._look_again(day)
            if news and ready and not self.way.nightly and self._wants():
                self._search(day)
            self.accuracy.append(self._judged(day))

    def _wants(self) -> bool:
        new = len(self.labelled) - len(self.learnt)
        if self.alarm and new >= self.way.min_labels:
            self.alarm = False
            return True
        return new >= max(self.way.min_labels, self.way.share * len(self.learnt))

    def _judged(self, day: int) -> float:
        shares, held = self.stream.world.plan.shares(day), self.stream.world.held_out
        return sum(
            share * self.champion.answering.accuracy(held[kind].embeddings, held[kind].truth)
            for kind, share in shares.items()
            if share > 0
        )

    def _of(self, part: Split) -> list[tuple[Arrived, str]]:
        return [self.labelled[digest] for digest in sorted(self.learnt) if split(digest) is part]

    def _fit(self, day: int) -> Model:
        train, held = (arrays(self._of(part)) for part in (Split.TRAIN, Split.VALIDATION))
        return Model(Answering.best_of(*train, held), self.learnt, day)

    def _search(self, day: int) -> None:
        self.searches += 1
        self.learnt = frozenset(self.labelled)
        model = self._fit(day)
        model.first = self._paired(model, self._of(Split.TEST))
        self._settle(model, decide(model.first, policy=GATES), day)

    def _look_again(self, day: int) -> None:
        patience = refused.PATIENCE.days
        self.waiting = [each for each in self.waiting if day - each.day <= patience]
        for model in self.waiting[::-1][: refused.MOST_CANDIDATES]:
            found = [self.labelled[digest] for digest in self.labelled if digest not in model.known]
            assert model.first is not None and model.case is not None
            if refused.due(model.case, len(found)):
                since = self._paired(model, found)
                verdict = later.judge(Comparison(model.first), since, model.case, len(found), GATES)
                self.waiting.remove(model)
                self._settle(model, verdict, day)
                return

    def _settle(self, model: Model, verdict: Verdict, day: int) -> None:
        if verdict.accepted:
            self.champion = model
            self.waiting.clear()
            self.promoted.append(day)
            return
        numbers = {**verdict.numbers, "champion": "champion"}
        decision = Decision(
            id="0", kind=DecisionKind.PROMOTE, deployment="d", accepted=False, what="", why="", subject="m",
            numbers=numbers, created_at=at(day, 0.0),
        )  # fmt: skip
        model.case = refused.said(decision)[1]
        if model.case is not None and not model.case.closed:
            model.day = day
            self.waiting.append(model)
            self.waiting.sort(key=lambda each: len(each.known))

    def _paired(self, model: Model, images: Sequence[tuple[Arrived, str]]) -> Paired:
        embeddings, truth = arrays(images)
        said = (each.answering.probabilities(embeddings) for each in (self.champion, model))
        return Paired(truth, *said, classes=CLASSES)


def arrays(images: Sequence[tuple[Arrived, str]]) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings (N, D), and labels (N,)."""
    embeddings = np.stack([image.embedding for image, _ in images])
    return embeddings, np.array([CLASSES.index(label) for _, label in images])


def lived(path: Path, seed: int, per_day: int, begins: int, ways: Sequence[str]) -> dict[str, Any]:
    """A year under each of the policies."""
    found: dict[str, Any] = {"seed": seed}
    for name in ways:
        replay = Replay(stream(path, seed, per_day, begins), WAYS[name])
        replay.live()
        found[name] = {
            "mean": float(np.mean(replay.accuracy)),
            "searches": replay.searches,
            "promoted": replay.promoted,
        }
    return found


def table(years: Sequence[dict[str, Any]], ways: Sequence[str]) -> None:
    def of(name: str, what: str) -> np.ndarray:
        return np.array([year[name][what] for year in years])

    def less(name: str, other: str) -> str:
        gains = of(name, "mean") - of(other, "mean")
        if name == other or len(gains) < 2:
            return "-"
        half = student.ppf(0.975, len(gains) - 1) * gains.std(ddof=1) / np.sqrt(len(gains))
        return f"{gains.mean():+.4f} ± {half:.4f}"

    nightly = [name for name in ways if WAYS[name].nightly]
    columns = ["policy", "mean accuracy", "searches", "promoted"]
    for other in nightly:
        columns += [f"less {other}", "of its searches"]
    rows = []
    for name in ways:
        promoted = np.mean([len(year[name]["promoted"]) for year in years])
        row = [
            name,
            f"{of(name, 'mean').mean():.4f}",
            f"{of(name, 'searches').mean():.0f}",
            f"{promoted:.1f}",
        ]
        for other in nightly:
            row += [less(name, other), f"{(of(name, 'searches') / of(other, 'searches')).mean():.3f}"]
        rows.append(row)
    show(
        f"{len(years)} years, each lived under every policy",
        columns,
        rows,
        "± is Student's 95 %, paired by years.",
    )


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--cache", type=Path, help="folder that keeps embeddings for the next time")
    parser.add_argument("--seeds", type=int, default=24)
    parser.add_argument("--from-seed", type=int, default=0)
    parser.add_argument("--per-day", type=int, default=40, help="requests")
    parser.add_argument("--policies", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    chosen = parser.parse_args()
    seeds = range(chosen.from_seed, chosen.from_seed + (2 if chosen.quick else chosen.seeds))
    with tempfile.TemporaryDirectory() as scratch:
        few, begins = (120, 40) if chosen.quick else (None, 300)
        path = recorded(chosen.cache or Path(scratch), few)
        os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"
        with ProcessPoolExecutor(chosen.processes, get_context("spawn")) as pool:
            going = [
                pool.submit(lived, path, seed, chosen.per_day, begins, chosen.policies) for seed in seeds
            ]
            years = []
            for future in going:
                years.append(future.result())
                means = (f"{name} {years[-1][name]['mean']:.4f}" for name in chosen.policies)
                print(f"seed {years[-1]['seed']}:", ", ".join(means), flush=True)
    table(years, chosen.policies)
    write_json(chosen.json, "years", {"per_day": chosen.per_day, "years": years})


if __name__ == "__main__":
    main()
