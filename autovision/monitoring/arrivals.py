"""Whether enough requests have arrived for a window, of which no file is read twice to know it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from autovision.monitoring.window import counts
from autovision.records.deployments import Capture
from autovision.store import captures
from autovision.store.protocol import Store


@dataclass
class Arrivals:
    """Remembers which requests were seen in which files, as long as they do not fill a window."""

    _seen: dict[str, tuple[tuple[str, datetime | None], dict[str, frozenset[str]]]] = field(
        default_factory=dict
    )

    def fill(
        self,
        store: Store,
        deployment: str,
        model: str,
        size: int,
        *,
        after: datetime | None,
        until: datetime | None = None,
    ) -> bool:
        """Whether so many requests are there that `model` answered in that time, counted as `latest_window` does."""
        question = model, after
        before, files = self._seen.get(deployment, (question, {}))
        if before != question:
            files = {}
        listed = list(captures.files(store, deployment, after=after))
        found: dict[str, frozenset[str]] = {}
        to_come: set[str] = set()
        for key in listed:
            if key in files:
                found[key] = files[key]
                continue
            every = _read(store, key)
            found[key] = frozenset(
                each.request_id for each in every if counts(each, model, after=after, until=until)
            )
            if until is not None and any(each.received_at > until for each in every):
                to_come.add(key)
        self._seen[deployment] = question, {key: ids for key, ids in found.items() if key not in to_come}
        return len(frozenset().union(*found.values())) >= size


def _read(store: Store, key: str) -> list[Capture]:
    try:
        return captures.read_file(store, key)
    except captures.Unreadable:
        return []
