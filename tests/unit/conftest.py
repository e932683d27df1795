"""Unit tests cannot start Ray: whatever needs it belongs into tests/integration."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture(autouse=True)
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a unit test tried to start Ray; move it to tests/integration")

    monkeypatch.setattr(ray, "init", refuse)
