"""How an evaluation becomes a record: what is news, and what is only counted.

A decision is stored where what was decided or its reasons are others than before; figures in them may change all the
time, and are in the state's `latest`. Reasons to wait that come and go are stored once an hour.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from autovision.errors import Conflict
from autovision.records.deployments import Decision, DecisionKind, RetrainingPolicy, Verdict
from autovision.records.retraining import Ask, RetrainingState
from autovision.records.searches import SearchRequest
from autovision.retraining.policy import NOTHING
from autovision.store import keys, records
from autovision.store.protocol import AlreadyExists, ETagMismatch, KeyNotFound, Store

NOTED_EVERY = timedelta(minutes=1)
"""an evaluation that comes to what the one before did is only counted, and written down so often"""
SAID_AGAIN_AFTER = timedelta(hours=1)


@dataclass(frozen=True)
class Seen:
    """A deployment's state as it was read, before anything else was: what is decided on it holds for it alone."""

    state: RetrainingState
    etag: str | None
    """None: it has none yet"""


def read(store: Store, deployment: str) -> Seen:
    """The state; an empty one of a deployment that was never evaluated."""
    try:
        return Seen(*records.read_versioned(store, keys.retraining(deployment), RetrainingState))
    except KeyNotFound:
        return Seen(RetrainingState(deployment=deployment), None)


def write(store: Store, seen: Seen, state: RetrainingState) -> None:
    """Replace the state that was seen. Raises `Conflict` if somebody has evaluated it meanwhile, or a person asked.

    So a leader that slept since it looked changes nothing once another one has written down what it saw.
    """
    key = keys.retraining(state.deployment)
    try:
        if seen.etag is None:
            records.create(store, key, state)
        else:
            store.put_if(key, state.to_json(), seen.etag)
    except (AlreadyExists, ETagMismatch, KeyNotFound):
        raise Conflict(
            f"the retraining of deployment {state.deployment!r} was evaluated by somebody else meanwhile; look again"
        ) from None


def successor(
    before: RetrainingState,
    verdict: Verdict,
    policy: RetrainingPolicy,
    *,
    request: SearchRequest | None,
    decision_id: str,
    at: datetime,
    evaluations: int,
    term: int,
) -> RetrainingState | None:
    """The state after a verdict; None: nothing that is worth writing down.

    Args:
        request: what an accepted verdict asks for.
        decision_id: of the decision, if the verdict is news.
        evaluations: how often it was evaluated since the state was written, this time included.
    """
    schedule = _schedule_of(policy)
    reset = schedule != before.schedule
    slot = datetime.fromisoformat(verdict.numbers["slot"]) if verdict.numbers["slot"] else before.slot
    if reset:
        slot = None if schedule is None else at
    passed = slot != before.slot and not reset
    said = {words: when for words, when in before.said.items() if at - when < SAID_AGAIN_AFTER}
    words = ", ".join(verdict.numbers["reasons"])
    same = before.latest is not None and words == ", ".join(before.latest.numbers["reasons"])
    news = verdict.accepted or passed or (not same and words not in said) or before.decision is None
    due = before.evaluated_at is None or at - before.evaluated_at >= NOTED_EVERY
    if not (news or reset or due or not same):
        return None
    decision = Decision(
        id=decision_id,
        kind=DecisionKind.RETRAIN,
        deployment=before.deployment,
        accepted=verdict.accepted,
        what=verdict.what,
        why=verdict.why,
        subject=request.id if request else None,
        numbers=verdict.numbers,
        created_at=at,
    )
    return before.with_(
        decision=decision if news else before.decision,
        request=request if news else before.request,
        latest=verdict,
        evaluated_at=at,
        since=before.since if same else at,
        evaluations=before.evaluations + evaluations if same else 1,
        said={**said, words: at} if news and not verdict.accepted else said,
        schedule=schedule,
        slot=slot,
        ask=None if verdict.accepted else before.ask,
        term=term,
    )


def stirs(decision: Decision) -> bool:
    """Whether anything speaks for a search, so that people should hear of it."""
    return bool(decision.numbers["reasons"] != [NOTHING])


def counts_from(state: RetrainingState, policy: RetrainingPolicy) -> datetime | None:
    """Up to when the slots of the schedule are dealt with; None: it is new, and begins to count now."""
    return state.slot if state.schedule == _schedule_of(policy) else None


def ask(store: Store, deployment: str, *, person: str, reason: str, at: datetime) -> tuple[Ask, bool]:
    """Note that a person wants a re-search, and whether that is news: one that waits already stays as it is."""
    asked = Ask(id=keys.timestamped_id(at), person=person, reason=reason, at=at)
    key = keys.retraining(deployment)
    records.create_or_read(store, key, RetrainingState(deployment=deployment))

    def change(state: RetrainingState) -> RetrainingState | None:
        return None if state.ask is not None else state.with_(ask=asked)

    after = records.update(store, key, RetrainingState, change)
    assert after.ask is not None
    return after.ask, after.ask == asked


def _schedule_of(policy: RetrainingPolicy) -> str | None:
    return None if policy.schedule is None else f"{policy.schedule} {policy.time_zone}"
