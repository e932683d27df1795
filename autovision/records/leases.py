"""Who alone may act, and until when."""

from __future__ import annotations

from pydantic import AwareDatetime

from autovision.records.base import Record


class Lease(Record):
    """Who alone may act, until when. A holder that outlives its lease must stop acting."""

    name: str
    holder: str
    token: int
    """grows by one with every new holder"""
    acquisition: str = ""
    """random, one for each time it was acquired: tokens begin anew where the record was deleted, this does not"""
    expires_at: AwareDatetime
