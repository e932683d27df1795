"""Any sequence of operations has the results that a dict would give."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings

from autovision.store import LocalStore, MemoryStore, Store
from autovision.testing.store_model import StoreMachine


class LocalMachine(StoreMachine):
    def make_store(self) -> Store:
        self.folder = Path(tempfile.mkdtemp())
        return LocalStore(self.folder / "store")

    def teardown(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


class MemoryMachine(StoreMachine):
    def make_store(self) -> Store:
        return MemoryStore()


_SETTINGS = settings(
    max_examples=40, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestLocalModel = LocalMachine.TestCase
TestLocalModel.settings = _SETTINGS
TestMemoryModel = MemoryMachine.TestCase
TestMemoryModel.settings = _SETTINGS
