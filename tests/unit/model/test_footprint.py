"""What serving takes, on the runtime that is asked for."""

from __future__ import annotations

import pytest

from autovision.model import footprint
from autovision.model.footprint import architecture_of, measure_here, size_mb
from autovision.space.config import TrialConfig

CONFIG = TrialConfig(backbone="test_resnet", weights="random", resolution=64)


def test_the_runtime_that_is_asked_for_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(footprint, "_MOST_S", 0.0)
    found = measure_here(CONFIG, 2, "eager-f32")
    assert found.runtime.startswith("eager-f32, ")
    assert found.latency_ms > 0 and found.memory_mb > 10
    assert found.size_mb == pytest.approx(size_mb(CONFIG, 2), rel=0.05)


def test_how_a_network_was_trained_is_no_part_of_its_architecture() -> None:
    trained = CONFIG.with_(lr=0.5, epochs=3, unfreeze=1, mixup=0.2)
    assert architecture_of(trained) == architecture_of(CONFIG)
    assert architecture_of(CONFIG.with_(head="mlp")) != architecture_of(CONFIG)
