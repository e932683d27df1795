"""What the API service keeps: who submitted what, how much, what was answered, and who did what."""

from __future__ import annotations

from typing import Any

from pydantic import AwareDatetime

from autovision.records.base import Record


class Submission(Record):
    """Who first submitted a search through the API service."""

    search: str
    by: str
    """name of the token; `anonymous` where none was needed"""
    token: str | None
    """its id"""
    at: AwareDatetime


class Charge(Record):
    """Seconds of search that a token was charged."""

    search: str
    seconds: float
    at: AwareDatetime


class Usage(Record):
    """What was submitted with a token within a day, or has not ended: changed by compare-and-swap only."""

    token: str
    charges: tuple[Charge, ...] = ()


class Answered(Record):
    """What a request with an idempotency key was answered: the same again gets the same."""

    fingerprint: str
    """digest of method, path and body"""
    status: int | None = None
    """None: it is under way, or whoever answered it was killed"""
    body: dict[str, Any] = {}
    subject: str | None = None
    """what it was about to make, such as a search; None: not known yet"""
    at: AwareDatetime


class AuditEntry(Record):
    """One act through the API service, or an attempt at one. Written once, never changed."""

    id: str
    at: AwareDatetime
    by: str
    """name of the token; `anonymous` where none was needed"""
    token: str | None
    """its id, never the token itself"""
    client: str | None
    """address that the request came from"""
    action: str
    """such as `search.submit`"""
    subject: str | None
    """the search, model, deployment or token that it was about; None: it was refused before that was known"""
    status: int
    """HTTP status of the answer"""
    problem: str | None = None
    """kind of problem; None: it was done"""
    request_id: str
