"""Bearer tokens: who may ask a server or the API service for what, how much of it, until when."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from pydantic import AwareDatetime, Field

from autovision.records.base import Record
from autovision.records.searches import MOST_PRIORITY


class Scope(StrEnum):
    """What a token allows. None implies another."""

    PREDICT = "predict"
    """images may be asked about"""
    FEEDBACK = "feedback"
    """labels may be given"""
    ADMIN = "admin"
    """metrics and the audit log may be read, tokens listed and revoked, gates overruled, others' searches stopped"""
    READ = "read"
    """what the store knows may be read: data sets, searches, models, deployments"""
    SUBMIT = "submit"
    """searches may be submitted, and one's own stopped and resumed"""
    PROMOTE = "promote"
    """models may be promoted, rolled back, approved and rejected"""


class Token(Record):
    """A token as it is kept: not the token itself, which only its owner has."""

    id: str
    """public: the token's second part, by which it is found"""
    name: str
    """whom it was given to; several may have one name, as when one replaces another"""
    scopes: tuple[Scope, ...]
    digest: str
    """SHA-256 of the whole token, in hex. A slow hash, as for passwords, would add nothing: it makes guessing
    dear, and 256 random bits cannot be guessed at any price, while every request would pay for it"""
    created_at: AwareDatetime
    expires_at: AwareDatetime | None = None
    """None: never"""
    revoked_at: AwareDatetime | None = None
    """None: it was not"""
    max_searches: int | None = Field(default=None, ge=1)
    """searches that wait or run at once, submitted with this token; None: any"""
    max_search_s_per_day: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """budgets of the searches that were submitted with it within 24 hours, in seconds; None: any"""
    max_priority: int = Field(default=0, ge=-MOST_PRIORITY, le=MOST_PRIORITY)
    """of searches that are submitted with it; with the scope `admin` any. Each step up is worth twice the places"""

    def allows_priority(self, priority: int) -> bool:
        return priority <= self.max_priority or Scope.ADMIN in self.scopes

    @property
    def has_quota(self) -> bool:
        return self.max_searches is not None or self.max_search_s_per_day is not None

    def is_valid(self, at: datetime) -> bool:
        return self.revoked_at is None and (self.expires_at is None or at < self.expires_at)


class TokenList(Record):
    """All tokens of a store, revoked ones too: one mutable record, so that a server reads one object to know all."""

    tokens: tuple[Token, ...] = ()
