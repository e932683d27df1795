"""How soon a harmful challenger is rolled back, and how often an equal one is.

    python tests/benchmarks/bench_rollout.py --json bench-results/

Simulated rollouts of a canary that answers a fifth of the requests, looked at after every 50 of its own, 2,000 at
most. Ours are the sequential tests of `autovision.promotion.staging`, at a false alarm of 1 %. Against them, in the
same runs: a one-sided two-sample z-test of the failed requests at 1 %, asked as often (as dashboards are), and the
same asked once, at the end. Latencies are log-normal around 30 ms. Intervals are Wilson's, 95 %. About a minute.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from common import options, show, write_json
from scipy.stats import norm

from autovision.evaluation import wilson
from autovision.promotion.staging import Evidence, Turn, next_turn
from autovision.records.rollouts import LATENCY_EDGES_S, ArmCounts, Rollout, RolloutPolicy

AT = datetime(2026, 3, 1, tzinfo=UTC)
POLICY = RolloutPolicy(canary=(0.2,), step_requests=2000)
LOOK, MOST, STABLE_PER_CANARY = 50, 2000, 4


@dataclass(frozen=True)
class Case:
    """What a challenger is like; the champion fails in `usual` of the requests."""

    name: str
    usual: float
    fails: float
    slower: float = 1.0


CASES = (
    Case("equal, none fails", 0.0, 0.0),
    Case("equal, 1 % fails", 0.01, 0.01),
    Case("equal, 10 % fails", 0.10, 0.10),
    Case("5 % fails, of the champion none", 0.0, 0.05),
    Case("20 % fails, of the champion 1 %", 0.01, 0.20),
    Case("half fails, of the champion 1 %", 0.01, 0.50),
    Case("1.5 times as slow", 0.01, 0.01, 1.5),
    Case("4 times as slow", 0.01, 0.01, 4.0),
)


def rollout() -> Rollout:
    return Rollout(
        id="r",
        model="b",
        steps=POLICY.steps(),
        false_alarm=POLICY.false_alarm,
        error_margin=POLICY.error_margin,
        latency_ratio=POLICY.latency_ratio,
        began_at=AT,
        step_began_at=AT,
    )


def arm(failed: np.ndarray, seconds: np.ndarray, n: int) -> ArmCounts:
    """Counts of the first `n` requests."""
    good = seconds[:n][~failed[:n]]
    buckets = np.bincount(np.searchsorted(LATENCY_EDGES_S, good), minlength=len(LATENCY_EDGES_S) + 1)
    return ArmCounts(answered=len(good), failed=int(failed[:n].sum()), latency=tuple(buckets.tolist()))


def z_test(stable: ArmCounts, challenger: ArmCounts) -> bool:
    """Whether the challenger fails more, at 1 %, by a two-sample test of proportions."""
    n, m = stable.answered + stable.failed, challenger.answered + challenger.failed
    pooled = (stable.failed + challenger.failed) / (n + m)
    spread = math.sqrt(pooled * (1 - pooled) * (1 / n + 1 / m))
    difference = challenger.failed / m - stable.failed / n
    return spread > 0 and difference / spread > float(norm.ppf(0.99))


def simulate(case: Case, rng: np.random.Generator) -> tuple[int | None, int | None, bool]:
    """Requests of the challenger until ours rolls back, and until the z-test would; and that one at the end."""
    stable_n = MOST * STABLE_PER_CANARY
    failed = rng.random(stable_n) < case.usual, rng.random(MOST) < case.fails
    seconds = (
        rng.lognormal(math.log(0.03), 0.4, stable_n),
        rng.lognormal(math.log(0.03 * case.slower), 0.4, MOST),
    )
    ours: int | None = None
    theirs: int | None = None
    for n in range(LOOK, MOST + 1, LOOK):
        arms = arm(failed[0], seconds[0], n * STABLE_PER_CANARY), arm(failed[1], seconds[1], n)
        if ours is None and next_turn(rollout(), Evidence(*arms), AT).turn is Turn.ROLL_BACK:
            ours = n
        if theirs is None and z_test(*arms):
            theirs = n
    return ours, theirs, z_test(*arms)


def share(hits: int, n: int) -> str:
    bounds = wilson(hits, n)
    return f"{hits / n:.1%} [{bounds.low:.1%}, {bounds.high:.1%}]"


def half(found: list[int | None]) -> str:
    """Half of those that were rolled back were so by then."""
    known = [each for each in found if each is not None]
    return f"{statistics.median(known):.0f}" if known else ""


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--runs", type=int, default=400)
    chosen = parser.parse_args()
    runs = 10 if chosen.quick else chosen.runs
    rows, figures = [], {}
    for case in CASES:
        rng = np.random.default_rng(0)
        found = [simulate(case, rng) for _ in range(runs)]
        ours, theirs = [each[0] for each in found], [each[1] for each in found]
        hits = [sum(each is not None for each in side) for side in (ours, theirs)]
        once = sum(each[2] for each in found)
        rows.append(
            [
                case.name,
                share(hits[0], runs),
                half(ours),
                share(hits[1], runs),
                half(theirs),
                share(once, runs),
            ]
        )
        figures[case.name] = {"ours": ours, "z-test, each look": theirs, "z-test, once": once}
    show(
        f"Rolled back within {MOST:,} requests of the canary, {runs} rollouts each",
        ("challenger", "ours", "half by", "z-test, each look", "half by", "z-test, once"),
        rows,
        "An equal challenger is to be rolled back in 1 % of rollouts at most; the z-test knows nothing of latencies.",
    )
    write_json(chosen.json, "rollout", {"runs": runs, "cases": figures})


if __name__ == "__main__":
    main()
