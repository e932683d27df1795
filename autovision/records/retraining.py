"""How the retraining of a deployment stands: one mutable record, changed by compare-and-swap only."""

from __future__ import annotations

from pydantic import AwareDatetime

from autovision.records.base import Record
from autovision.records.deployments import Decision, Verdict
from autovision.records.searches import SearchRequest


class Ask(Record):
    """A person's word that a deployment should search again."""

    id: str
    person: str
    reason: str
    at: AwareDatetime


class RetrainingState(Record):
    """What was last seen and decided.

    A decision, the search that it asks for, and what it takes note of are one write, so that whoever is killed leaves
    none without the others; carrying it out is for whoever comes next, and the same however often it is done.
    """

    deployment: str
    decision: Decision | None = None
    """the latest one"""
    request: SearchRequest | None = None
    """what it asks for; None: for nothing"""
    latest: Verdict | None = None
    """of the latest evaluation that was written down; its numbers may be newer than the decision's"""
    evaluated_at: AwareDatetime | None = None
    since: AwareDatetime | None = None
    """of the first evaluation in a row that came to the same reasons"""
    evaluations: int = 0
    """in that row"""
    said: dict[str, AwareDatetime] = {}
    """reasons of the last hour's decisions to wait -> when they were given: they are not given again so soon"""
    schedule: str | None = None
    """the cron expression, with its time zone, whose slots are counted"""
    slot: AwareDatetime | None = None
    """the last slot that was answered or passed, or when the schedule began to count"""
    ask: Ask | None = None
    """that no search has answered yet"""
    term: int = 0
    """fencing token of the controller that evaluated; 0: it did not lead"""
