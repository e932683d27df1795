"""A store with searches that can be finished, and what finishes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from autovision.store import MemoryStore
from autovision.trial.workbench import Workbench

if TYPE_CHECKING:
    from tests.unit.conftest import History


@pytest.fixture
def store(tiny: History) -> MemoryStore:
    return tiny.copy()


@pytest.fixture(scope="module")
def bench(tiny: History) -> Workbench:
    """Backbones stay loaded; it writes nothing here, as all features are there."""
    return Workbench(tiny.copy(), threads=2)
