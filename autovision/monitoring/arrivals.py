"""Whether enough requests have arrived for a window, of which no file is read twice to know it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from autovision.store import captures
from autovision.store.protocol import Store


@dataclass
class Arrivals:
    """Remembers which requests were seen in which files, as long as they do not fill a window."""

    _seen: dict[str, tuple[tuple[str, datetime | None], dict[str, frozenset[str]]]] = field(
        default_factory=dict
    )

    def fill(self, store: Store, deployment: str, model: str, size: int, *, after: datetime | None) -> bool:
        """Whether `size` requests that `model` answered after `after` are there, counted as `latest_window` does."""
        question = model, after
        before, files = self._seen.get(deployment, (question, {}))
        if before != question:
            files = {}
        listed = list(captures.files(store, deployment, after=after))
        found: dict[str, frozenset[str]] = {}
        for key in listed:
            found[key] = files[key] if key in files else _usable(store, key, model, after)
        self._seen[deployment] = question, found
        return len(frozenset().union(*found.values())) >= size


def _usable(store: Store, key: str, model: str, after: datetime | None) -> frozenset[str]:
    try:
        return frozenset(
            capture.request_id
            for capture in captures.read_file(store, key)
            if capture.model == model and capture.embedding and (after is None or capture.received_at > after)
        )
    except captures.Unreadable:
        return frozenset()
