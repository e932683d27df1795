"""The audit log: who did what through the service, when, and what came of it. Objects that are written once.

An act is noted before its answer leaves; what a known caller was refused is noted, too. Whoever has no valid token can
write nothing into the store, and so stands in the service's own log alone. Tokens stand in neither.
"""

from __future__ import annotations

import logging
from collections import deque
from datetime import datetime
from itertools import islice
from typing import Any

from fastapi import Depends, Request
from starlette.types import Scope as AsgiScope

from autovision.records.service import AuditEntry
from autovision.serving.problems import escaped_trace
from autovision.store import keys, records
from autovision.store.protocol import Store

logger = logging.getLogger(__name__)


class Trail:
    """What is known of a request while it is answered."""

    def __init__(self, request_id: str, client: str | None) -> None:
        self.request_id = request_id
        self.client = client
        self.action: str | None = None
        self.subject: str | None = None
        self.name: str | None = None
        self.token: str | None = None
        self.problem: str | None = None

    def by(self, name: str, token: str | None) -> None:
        """Who asks."""
        self.name, self.token = name, token

    @property
    def counts(self) -> bool:
        """Whether it is an act, of somebody who is known."""
        return self.action is not None and self.name is not None

    def entry(self, status: int, at: datetime) -> AuditEntry:
        assert self.action is not None and self.name is not None, "see `counts`"
        return AuditEntry(
            id=keys.timestamped_id(at),
            at=at,
            by=self.name,
            token=self.token,
            client=self.client,
            action=self.action,
            subject=self.subject,
            status=status,
            problem=self.problem,
            request_id=self.request_id,
        )


def begin(scope: AsgiScope, request_id: str) -> Trail:
    """A request begins."""
    client = scope.get("client")
    trail = Trail(request_id, client[0] if client else None)
    scope.setdefault("state", {})["trail"] = trail
    return trail


def trail_of(request: Request) -> Trail:
    found: Trail = request.state.trail
    return found


def acting(action: str) -> Any:
    """Of a route: it is an act, to be noted under this name, on what the path names first."""

    async def acts(request: Request) -> None:
        trail = trail_of(request)
        trail.action = action
        trail.subject = next((str(value)[:128] for value in request.path_params.values()), None)

    return Depends(acts)


def note(store: Store, trail: Trail, status: int, at: datetime) -> None:
    """Write an act down. A store that is away keeps nobody from an answer to what was done already; the log tells."""
    entry = trail.entry(status, at)
    try:
        records.create(store, keys.audit_entry(entry.id), entry)
    except Exception as error:  # noqa: BLE001 - whatever it is, the act was done
        logger.error("the audit log lacks %s: %s", ascii(entry.model_dump_json()), escaped_trace(error))


def entries(store: Store, after: str, most: int | None, day: str = "") -> list[AuditEntry]:
    """Up to so many entries with ids behind `after`, oldest first; with a day, such as `20261127`, those of it."""
    behind = keys.audit_entry(after) if after else ""
    found = (key for key in store.list(f"{keys.AUDIT}{day}") if key > behind and key.endswith(".json"))
    return list(records.read_many(store, islice(found, most), AuditEntry).values())


def latest(store: Store, most: int) -> list[AuditEntry]:
    """The last so many entries, oldest first."""
    found = deque((key for key in store.list(keys.AUDIT) if key.endswith(".json")), maxlen=most)
    return list(records.read_many(store, found, AuditEntry).values())
