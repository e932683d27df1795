"""A caller stays on one side, and the sides are as large as they are said to be."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from autovision.records.rollouts import Rollout, RolloutPolicy
from autovision.serving.arms import Arms, Wanted, position
from autovision.serving.predicting import Served

AT = datetime(2026, 3, 1, tzinfo=UTC)
POLICY = RolloutPolicy(shadow_s=1, shadow_share=0.3, canary=(0.1, 0.4))
KEYS = [f"caller-{number}" for number in range(4000)]


def rollout(at: int, id_: str = "r1") -> Rollout:
    return Rollout(
        id=id_,
        model="b",
        steps=POLICY.steps(),
        at=at,
        false_alarm=0.01,
        error_margin=0.01,
        latency_ratio=2,
        began_at=AT,
        step_began_at=AT,
    )


@pytest.fixture
def arms(make_predictor: Any) -> Any:
    def make(at: int) -> Arms:
        return Arms(Served(make_predictor("a"), AT), Served(make_predictor("b"), AT), rollout(at))

    return make


def test_shares_are_what_they_say(arms: Any) -> None:
    shadow, tenth, most = (arms(at) for at in range(3))
    # 4,000 draws: the standard deviation of a share is 0.008 at most.
    assert sum(map(shadow.is_shadowed, KEYS)) / len(KEYS) == pytest.approx(0.3, abs=0.03)
    assert sum(map(tenth.is_canary, KEYS)) / len(KEYS) == pytest.approx(0.1, abs=0.03)
    assert sum(map(most.is_canary, KEYS)) / len(KEYS) == pytest.approx(0.4, abs=0.03)
    assert not any(map(shadow.is_canary, KEYS)) and not any(map(most.is_shadowed, KEYS))


def test_who_is_with_the_challenger_stays_there_as_its_share_rises(arms: Any) -> None:
    tenth, most = arms(1), arms(2)
    early = [key for key in KEYS if tenth.is_canary(key)]
    assert all(map(most.is_canary, early))
    assert [most.is_canary(key) for key in KEYS] == [most.is_canary(key) for key in KEYS]


def test_other_rollouts_choose_other_callers() -> None:
    same = sum((position("r1", key) < 0.1) == (position("r2", key) < 0.1) for key in KEYS)
    assert same / len(KEYS) == pytest.approx(0.82, abs=0.03)


def test_without_a_loaded_challenger_the_champion_answers_everybody(make_predictor: Any) -> None:
    loading = Arms(Served(make_predictor("a"), AT), None, rollout(2))
    assert not any(map(loading.is_canary, KEYS))
    assert not any(map(Arms().is_shadowed, KEYS))


def test_what_is_to_be_loaded_begins_with_the_champion() -> None:
    assert Wanted().models == ()
    assert Wanted("a", rollout(0)).models == ("a", "b")
    assert Wanted("b", rollout(0)).models == ("b",)
