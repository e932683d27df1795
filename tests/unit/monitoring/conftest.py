from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from autovision.records.deployments import Capture

START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def capture():
    def make(number, *, model="m1", embedding=(0.0, 1.0), label="ok", confidence=0.75, request_id=None):
        other = "defective" if label == "ok" else "ok"
        return Capture(
            request_id=request_id or f"r{number:04d}",
            deployment="solar",
            model=model,
            received_at=START + timedelta(seconds=number),
            latency_ms=5.0,
            image=f"{number:064x}",
            label=label,
            probabilities={label: confidence, other: 1 - confidence},
            embedding=tuple(float(x) for x in embedding),
        )

    return make


@pytest.fixture
def embeddings():
    """Draw (n, 60) rows of correlated, skewed numbers, some of them moved by `shift`."""
    mixing = np.random.default_rng(99).normal(size=(12, 60))

    def draw(n, rng, shift=0.0):
        rows = rng.normal(size=(n, 12)) @ mixing + rng.normal(size=(n, 60))
        return np.maximum(rows + shift, -2.0)

    return draw
