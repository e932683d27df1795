"""All back ends against the shipped contract."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from autovision.store import LocalStore, MemoryStore, Store, open_store
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


class TestS3Store(StoreContract):
    rounds = 4

    @pytest.fixture
    def make_store(self, s3_server_url: str, make_bucket: Callable[[], str]) -> Callable[[], Store]:
        bucket, numbers = make_bucket(), itertools.count()
        return lambda: open_store(f"s3://{bucket}/a{next(numbers)}?region=us-east-1&endpoint={s3_server_url}")
