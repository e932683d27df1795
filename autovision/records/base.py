"""What all records are: frozen, written as JSON, changed only by copy."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from typing import Any, Self

from pydantic import BaseModel, ConfigDict


def now() -> datetime:
    """The time in UTC. Code that decides by time takes a clock instead, so that tests can set it."""
    return datetime.now(UTC)


def digest_of(value: Any) -> str:
    """SHA-256, in hex, of a JSON-able value in canonical form (sorted keys, no spaces)."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


class Record(BaseModel):
    """A frozen record. Unknown fields are refused, so that a misspelt one is never ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="null")

    def to_json(self) -> bytes:
        return self.model_dump_json(indent=1).encode()

    def with_(self, **changes: Any) -> Self:
        """A checked copy with some fields changed."""
        return type(self).model_validate({**self.model_dump(), **changes})
