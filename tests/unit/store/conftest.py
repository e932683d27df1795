from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

pytest.register_assert_rewrite(
    "autovision.testing.store_contract", "autovision.testing.store_model", "autovision.testing.contender"
)

from autovision.store import LocalStore, MemoryStore, Store  # noqa: E402
from autovision.testing import FakeClock  # noqa: E402


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return LocalStore(tmp_path / "store") if request.param == "local" else MemoryStore()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(datetime(2026, 3, 1, tzinfo=UTC))
