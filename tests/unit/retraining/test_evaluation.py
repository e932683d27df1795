"""What of an evaluation is written down."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from autovision.errors import Conflict
from autovision.records.deployments import RetrainingPolicy, Verdict
from autovision.records.retraining import RetrainingState
from autovision.retraining import evaluation
from autovision.retraining.policy import NOTHING
from autovision.store import MemoryStore

NOW = datetime(2026, 1, 1, tzinfo=UTC)
POLICY = RetrainingPolicy()


def verdict(
    *reasons: str, accepted: bool = False, slot: datetime | None = None, why: str = "because"
) -> Verdict:
    numbers = {"reasons": list(reasons), "slot": slot.isoformat() if slot else None}
    return Verdict(accepted=accepted, what="what", why=why, numbers=numbers)


class Diary:
    """Evaluates again and again, and keeps what is written."""

    def __init__(self) -> None:
        self.state = RetrainingState(deployment="door")
        self.at = NOW
        self.unwritten = 0

    def hears(self, said: Verdict, *, after_s: float = 2.0, policy: RetrainingPolicy = POLICY) -> bool:
        """Whether a verdict is written down as a decision."""
        self.at += timedelta(seconds=after_s)
        self.unwritten += 1
        before = self.state.decision
        state = evaluation.successor(
            self.state,
            said,
            policy,
            request=None,
            decision_id=f"{self.at}",
            at=self.at,
            evaluations=self.unwritten,
            term=0,
        )
        if state is not None:
            self.state, self.unwritten = state, 0
        return self.state.decision != before


def test_the_same_reasons_are_counted_and_no_news() -> None:
    diary = Diary()
    assert diary.hears(verdict("drift lacks labels"))
    written = 0
    for n in range(300):  # ten minutes
        before = diary.state
        assert not diary.hears(verdict("drift lacks labels", why=f"{n} labels"))
        written += diary.state != before
    assert written == 10
    diary.hears(verdict("drift lacks labels", why="300 labels"), after_s=60)
    assert diary.state.evaluations == 302
    assert diary.state.latest is not None and diary.state.latest.why == "300 labels"
    assert diary.state.decision is not None and diary.state.decision.why == "because"


def test_the_first_evaluation_and_each_other_reason_are_news() -> None:
    diary = Diary()
    assert diary.hears(verdict(NOTHING))
    assert diary.hears(verdict("drift", "but", "cooldown"))
    assert not diary.hears(verdict("drift", "but", "cooldown"))
    assert diary.state.evaluations == 1, "the second one is not written down yet"
    assert diary.hears(verdict("drift", "but", "running"))
    assert diary.state.since == diary.at


def test_reasons_that_come_and_go_are_said_once_an_hour() -> None:
    diary = Diary()
    said = sum(
        diary.hears(verdict(*(["drift lacks labels"] if n % 2 else [NOTHING])), after_s=10)
        for n in range(8 * 360)
    )
    assert 16 <= said <= 18
    assert diary.state.latest is not None
    assert diary.state.latest.numbers["reasons"] == ["drift lacks labels"], (
        "what holds now is known all the same"
    )


def test_an_act_is_always_news_and_answers_the_person() -> None:
    store = MemoryStore()
    evaluation.ask(store, "door", person="ann", reason="x", at=NOW)
    diary = Diary()
    diary.state = evaluation.read(store, "door").state
    assert diary.hears(verdict("search", "manual", accepted=True))
    assert diary.state.ask is None
    assert diary.hears(verdict("search", "manual", accepted=True))


def test_each_slot_that_passes_is_news() -> None:
    diary, policy = Diary(), RetrainingPolicy(schedule="0 3 * * *")
    diary.hears(verdict(NOTHING), policy=policy)
    assert (diary.state.slot, diary.state.schedule) == (diary.at, "0 3 * * * UTC"), "it counts from here"
    for day in range(1, 4):
        slot = NOW + timedelta(days=day, hours=3)
        assert diary.hears(verdict("schedule lacks labels", slot=slot), policy=policy)
        assert not diary.hears(verdict("schedule lacks labels"), policy=policy)
        assert diary.state.slot == slot


def test_another_schedule_counts_anew() -> None:
    diary, first = Diary(), RetrainingPolicy(schedule="0 3 * * *")
    diary.hears(verdict(NOTHING), policy=first)
    begun = diary.at
    assert evaluation.counts_from(diary.state, first) == begun
    for other in (first.with_(time_zone="Europe/Berlin"), first.with_(schedule="0 4 * * *")):
        assert evaluation.counts_from(diary.state, other) is None
        diary.hears(verdict(NOTHING), policy=other)
        assert evaluation.counts_from(diary.state, other) == diary.at
    diary.hears(verdict(NOTHING))
    assert (diary.state.slot, diary.state.schedule) == (None, None)


def state_of(**changes: Any) -> RetrainingState:
    return RetrainingState(deployment="door", **changes)


def test_what_was_decided_on_an_old_state_is_refused() -> None:
    store = MemoryStore()
    fresh = evaluation.read(store, "door")
    evaluation.write(store, fresh, state_of(evaluations=1))
    with pytest.raises(Conflict, match="'door' was evaluated by somebody else"):
        evaluation.write(store, fresh, state_of(evaluations=9))
    seen = evaluation.read(store, "door")
    evaluation.ask(store, "door", person="ann", reason="x", at=NOW)
    with pytest.raises(Conflict):
        evaluation.write(store, seen, state_of(evaluations=9))
    after = evaluation.read(store, "door").state
    assert (after.evaluations, after.ask is None) == (1, False)


def test_asking_again_is_no_news_until_it_was_answered() -> None:
    store = MemoryStore()
    first, news = evaluation.ask(store, "door", person="ann", reason="new lamps", at=NOW)
    assert news
    assert evaluation.ask(store, "door", person="bob", reason="me too", at=NOW) == (first, False)
    seen = evaluation.read(store, "door")
    evaluation.write(store, seen, seen.state.with_(ask=None))
    again, news = evaluation.ask(store, "door", person="bob", reason="me too", at=NOW)
    assert (again.person, news) == ("bob", True)
