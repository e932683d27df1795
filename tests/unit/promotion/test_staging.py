"""A rollout waits, goes on, ends, or is rolled back, by what both arms did."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from autovision.promotion.staging import Evidence, Judged, Turn, next_turn, quantile_s
from autovision.records.rollouts import LATENCY_EDGES_S, ArmCounts, Rollout, RolloutPolicy

AT = datetime(2026, 3, 1, tzinfo=UTC)
POLICY = RolloutPolicy(shadow_requests=50, canary=(0.1, 0.5), step_requests=100, step_s=60)


def rollout(at: int = 1, **changes: Any) -> Rollout:
    begun: dict[str, Any] = {
        "id": "r1",
        "model": "b",
        "steps": POLICY.steps(),
        "at": at,
        "false_alarm": POLICY.false_alarm,
        "error_margin": POLICY.error_margin,
        "latency_ratio": POLICY.latency_ratio,
        "began_at": AT,
        "step_began_at": AT,
    }
    return Rollout(**{**begun, **changes})


def arm(answered: int, failed: int = 0, seconds: Sequence[float] = (0.02,)) -> ArmCounts:
    """Counts of an arm whose latencies repeat."""
    latency = [0] * (len(LATENCY_EDGES_S) + 1)
    for number in range(answered):
        latency[bisect_left(LATENCY_EDGES_S, seconds[number % len(seconds)])] += 1
    return ArmCounts(answered=answered, failed=failed, latency=tuple(latency))


def turn(evidence: Evidence, seconds: float = 60, **changes: Any) -> Turn:
    return next_turn(rollout(**changes), evidence, AT + timedelta(seconds=seconds)).turn


@pytest.mark.parametrize(
    ("answered", "seconds", "expected"),
    [(99, 60, Turn.STAY), (100, 59, Turn.STAY), (100, 60, Turn.ADVANCE), (0, 10_000, Turn.STAY)],
)
def test_a_step_ends_when_it_has_lasted_and_answered_enough(
    answered: int, seconds: float, expected: Turn
) -> None:
    assert turn(Evidence(arm(1000), arm(answered)), seconds) is expected


def test_what_was_answered_in_earlier_steps_does_not_count_for_this_one() -> None:
    assert turn(Evidence(arm(1000), arm(150)), answered_before=60) is Turn.STAY
    assert turn(Evidence(arm(1000), arm(160)), answered_before=60) is Turn.ADVANCE


def test_after_its_last_step_the_challenger_is_champion() -> None:
    verdict = next_turn(rollout(2), Evidence(arm(900), arm(300, 1), 40, 39), AT + timedelta(seconds=60))
    assert verdict.turn is Turn.FINISH
    assert "1 of 301 failed" in verdict.why and "39 of 40" in verdict.why
    assert verdict.numbers["challenger"]["answered"] == 300


def test_a_challenger_that_fails_more_is_rolled_back_before_its_step_is_over() -> None:
    verdict = next_turn(rollout(), Evidence(arm(900), arm(20, 12)), AT)
    assert verdict.turn is Turn.ROLL_BACK
    assert "12 of 32 requests of the challenger failed, and 0 of 900" in verdict.why
    assert turn(Evidence(arm(900), arm(40, 1)), 0) is Turn.STAY, "one failure is no evidence"
    assert turn(Evidence(arm(900, 300), arm(300, 100)), 0) is Turn.STAY, "the champion fails as often"


def test_a_challenger_that_is_slower_is_rolled_back_and_one_within_the_ratio_is_not() -> None:
    usual = (0.020, 0.025, 0.030)
    verdict = next_turn(rollout(), Evidence(arm(900, seconds=usual), arm(60, seconds=(0.2,))), AT)
    assert verdict.turn is Turn.ROLL_BACK
    assert "slower than 2 times" in verdict.why
    assert turn(Evidence(arm(900, seconds=usual), arm(300, seconds=(0.030, 0.036))), 0) is Turn.STAY
    tail = [0.02] * 9 + [1.0]
    assert turn(Evidence(arm(900), arm(300, seconds=tail)), 0) is Turn.ROLL_BACK, "one in ten hangs"


def test_labels_of_copies_tell_which_of_both_was_right() -> None:
    def judged(gained: int, lost: int) -> Turn:
        return turn(Evidence(arm(500), arm(40), judged=Judged(gained=gained, lost=lost)), 0, at=0)

    assert judged(2, 20) is Turn.ROLL_BACK
    assert judged(20, 2) is Turn.STAY
    assert judged(10, 14) is Turn.STAY, "that may be chance"


def test_labels_of_a_canary_tell_whether_it_is_wrong_more_often() -> None:
    def judged(stable: tuple[int, int], challenger: tuple[int, int]) -> Turn:
        return turn(Evidence(arm(500), arm(90), judged=Judged(stable, challenger)), 0)

    assert judged((400, 380), (60, 30)) is Turn.ROLL_BACK
    assert judged((400, 380), (60, 55)) is Turn.STAY
    assert judged((0, 0), (60, 10)) is Turn.STAY, "nothing is known of the champion"


def test_one_that_cannot_be_loaded_is_rolled_back_at_once() -> None:
    verdict = next_turn(rollout(), Evidence(unloadable="no weights of 'b'"), AT)
    assert verdict.turn is Turn.ROLL_BACK and "no weights of 'b'" in verdict.why


def test_an_equal_challenger_is_rolled_back_at_most_as_often_as_the_policy_says() -> None:
    """Both arms alike in all three harms, looked at 40 times: 60 rollouts at a tenth, so about six at most."""
    rng, rolled_back = np.random.default_rng(0), 0
    for _ in range(60):
        seconds = rng.lognormal(-3.5, 0.5, (2, 800))
        failed = np.cumsum(rng.random((2, 800)) < 0.05, axis=1)
        right = np.cumsum(rng.random((2, 800)) < 0.9, axis=1)
        for n in range(20, 801, 20):
            arms = [arm(n, int(failed[side, n - 1]), seconds[side, :n]) for side in range(2)]
            labels = [(n, int(right[side, n - 1])) for side in range(2)]
            verdict = next_turn(
                rollout(false_alarm=0.1, error_margin=0.001, latency_ratio=1.4, step_began_at=AT),
                Evidence(*arms, judged=Judged(*labels)),
                AT,
            )
            if verdict.turn is Turn.ROLL_BACK:
                rolled_back += 1
                break
    assert rolled_back <= 6 + 3 * 2.4


def test_quantiles_are_upper_edges_of_buckets() -> None:
    assert quantile_s(ArmCounts(), 0.5) == 0.0
    assert quantile_s(arm(10, seconds=(0.02,)), 0.5) == LATENCY_EDGES_S[bisect_left(LATENCY_EDGES_S, 0.02)]
    assert quantile_s(arm(10, seconds=(99.0,)), 0.5) == LATENCY_EDGES_S[-1]


@pytest.mark.parametrize("canary", [(0.5, 0.5), (0.5, 0.2), (0.0, 0.5), (0.5, 1.0)])
def test_shares_that_do_not_rise_are_refused(canary: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="shares of a canary"):
        RolloutPolicy(canary=canary)


def test_a_policy_without_steps_has_none() -> None:
    assert RolloutPolicy().steps() == ()
    assert [step.stage.value for step in POLICY.steps()] == ["shadow", "canary", "canary"]
