"""Decisions tell who was champion when: those of today, and those of before."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from autovision.records.deployments import Decision, DecisionKind, Deployment
from autovision.registry.reigns import checked, made_champion, reigns

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def decision(
    kind: DecisionKind, hours: float, subject: str, *, accepted: bool = True, what: str = "", **numbers: Any
) -> Decision:
    at = NOON + timedelta(hours=hours)
    return Decision(
        id=f"{hours:09.3f}",
        kind=kind,
        deployment="door",
        accepted=accepted,
        what=what,
        why="because",
        subject=subject,
        numbers=numbers,
        created_at=at,
    )


def promoted(hours: float, subject: str, champion: str | None, **numbers: Any) -> Decision:
    return decision(DecisionKind.PROMOTE, hours, subject, champion=champion, **numbers)


@pytest.mark.parametrize(
    ("said", "made"),
    [
        (promoted(0, "b", "a", steps=[]), "b"),
        (promoted(0, "b", "a"), "b"),  # from before there were steps
        (promoted(0, "b", "a", steps=[{"share": 0.1}]), None),
        (decision(DecisionKind.PROMOTE, 0, "b", what="nothing to do: b"), None),
        (decision(DecisionKind.PROMOTE, 0, "b", accepted=False, champion="a", steps=[]), None),
        (decision(DecisionKind.ADVANCE, 0, "b", is_champion=True), "b"),
        (decision(DecisionKind.ADVANCE, 0, "b", what="b goes on: a canary", is_champion=False), None),
        (decision(DecisionKind.ADVANCE, 0, "b", what="b is champion"), "b"),  # from before it was a number
        (decision(DecisionKind.ADVANCE, 0, "b", what="b goes on: a canary"), None),
        (decision(DecisionKind.ROLLBACK, 0, "a"), "a"),
        (decision(DecisionKind.RETRAIN, 0, "search"), None),
    ],
)
def test_what_makes_a_champion(said: Decision, made: str | None) -> None:
    assert made_champion(said) == made


def test_champions_follow_each_other_without_gaps() -> None:
    told = [
        promoted(1, "a", None, steps=[]),
        promoted(2, "b", "a", steps=[{"share": 0.1}]),
        decision(DecisionKind.ROLLBACK, 3, "a", **{"from": "b", "rollout": "000000002"}),
        promoted(4, "b", "a", steps=[{"share": 0.1}]),
        decision(DecisionKind.ADVANCE, 5, "b", is_champion=True),
        promoted(6, "b", "b", steps=[]),
        decision(DecisionKind.ROLLBACK, 7, "a", **{"from": "b", "rollout": None}),
    ]
    found = reigns(told, NOON)
    assert [(each.model, each.decision) for each in found] == [
        ("a", told[0].id),
        ("b", told[4].id),
        ("a", told[6].id),
    ]
    assert [each.since for each in found] == [told[i].created_at for i in (0, 4, 6)]
    assert [each.until for each in found] == [told[4].created_at, told[6].created_at, None]


@pytest.mark.parametrize(
    "first",
    [
        promoted(5, "b", "a", steps=[]),
        decision(DecisionKind.ROLLBACK, 5, "b", **{"from": "a", "rollout": None}),
    ],
)
def test_a_champion_that_no_decision_made_reigned_from_the_beginning(first: Decision) -> None:
    before, after = reigns([first], NOON)
    assert (before.model, before.since, before.until, before.decision) == (
        "a",
        NOON,
        first.created_at,
        None,
    )
    assert (after.model, after.decision) == ("b", first.id)


def test_a_rollback_that_only_ended_a_rollout_changes_nobody() -> None:
    first = decision(DecisionKind.ROLLBACK, 5, "a", **{"from": "b", "rollout": "x"})
    (found,) = reigns([first], NOON)
    assert (found.model, found.since, found.until, found.decision) == ("a", NOON, None, None)


def deployment(model: str | None) -> Deployment:
    return Deployment(
        name="door",
        dataset="colours",
        model=model,
        space={},
        created_at=NOON,
        updated_at=NOON + timedelta(hours=9),
    )


def test_the_record_has_the_last_word() -> None:
    found = reigns([promoted(1, "a", None, steps=[])], NOON)
    assert checked(found, deployment("a")) == (found, [])
    (before, last), (note,) = checked(found, deployment("b"))
    assert (before.until, last.model, last.since, last.decision) == (last.since, "b", last.since, None)
    assert last.since == NOON + timedelta(hours=9)
    assert "no decision tells since when b is champion" in note
    (only,), _ = checked([], deployment("b"))
    assert only.since == NOON
    assert checked([], deployment(None)) == ([], [])
    assert "names none" in checked(found, deployment(None))[1][0]
