"""What labels say of a rollout, without all of its requests in memory."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from autovision.promotion import evidence
from autovision.promotion.staging import Judged
from autovision.records.deployments import Capture, Label
from autovision.store import MemoryStore, captures, keys, labels

BEGAN = datetime(2026, 3, 1, tzinfo=UTC)


def capture(number: int) -> Capture:
    at = BEGAN + timedelta(seconds=number + 1)
    return Capture(
        request_id=keys.derived_id(at, f"{number:064x}"),
        deployment="door",
        model="new" if number % 2 else "old",
        received_at=at,
        latency_ms=1.0,
        image=f"{number:064x}",
        label="cat",
        probabilities={"cat": 0.9, "dog": 0.1},
        embedding=(0.5,) * 8,
    )


def test_only_what_is_labelled_is_held_and_each_request_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    sent = [capture(number) for number in range(20)]
    for some in (sent[:12], sent[10:]):  # two were stored twice
        captures.append(store, "door", some, at=some[-1].received_at)
    for each, said in zip(sent[9:13], ("cat", "dog", "cat", "dog"), strict=True):
        labels.add(store, "door", Label(request_id=each.request_id, label=said, received_at=BEGAN))
    held: list[Capture] = []
    real = evidence.judge

    def judge(answered: Iterable[Capture], truth: Any, challenger: str) -> Judged:
        held.extend(answered)
        return real(held, truth, challenger)

    monkeypatch.setattr(evidence, "judge", judge)
    rollout: Any = SimpleNamespace(began_at=BEGAN, model="new")
    found = evidence._judged(store, "door", rollout)
    assert (found.challenger, found.stable) == ((2, 2), (2, 0))
    assert sorted(each.request_id for each in held) == sorted(each.request_id for each in sent[9:13])
    assert not any(each.embedding for each in held)
