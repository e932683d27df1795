"""Both back ends against the shipped contract."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from autovision.store import LocalStore, MemoryStore, Store
from autovision.testing.store_contract import StoreContract


class TestLocalStore(StoreContract):
    @pytest.fixture
    def make_store(self, tmp_path: Path) -> Callable[[], Store]:
        numbers = itertools.count()
        return lambda: LocalStore(tmp_path / f"größe 100%#{next(numbers)}")


class TestMemoryStore(StoreContract):
    shared_by_processes = False

    @pytest.fixture
    def make_store(self) -> Callable[[], Store]:
        return MemoryStore
