"""Captured requests as images of a data set."""

from __future__ import annotations

import hashlib
import io
from datetime import UTC, datetime

from PIL import Image

from autovision.dataset import captured
from autovision.records.deployments import Capture
from autovision.store import MemoryStore, captures, keys


def test_what_is_no_image_has_an_empty_hash_and_what_is_gone_has_none() -> None:
    store, at = MemoryStore(), datetime(2026, 5, 1, tzinfo=UTC)
    sink = io.BytesIO()
    Image.effect_noise((32, 32), 60).save(sink, "PNG")
    made = []
    for data in (sink.getvalue(), b"no image", b"gone"):
        digest = hashlib.sha256(data).hexdigest()
        made.append(
            Capture(
                request_id=keys.derived_id(at, digest),
                deployment="door",
                model="m",
                received_at=at,
                latency_ms=1.0,
                image=digest,
                image_bytes=len(data),
                label="ok",
                probabilities={"ok": 1.0},
                embedding=(0.0,),
            )
        )
        if data != b"gone":
            store.put_immutable(captures.image_key(made[-1]), data)
    found = captured.hashes(store, made)
    assert found[made[0].image] and found[made[1].image] == "" and made[2].image not in found
