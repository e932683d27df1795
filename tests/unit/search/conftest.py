"""Lines of a ledger, and predictions where nothing was measured."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from autovision.records.trials import CurvePoint, TrialResult, TrialState
from autovision.search.costing.cost import CostModel
from autovision.space.config import TrialConfig
from autovision.trial.workbench import Workbench
from tests.unit.search.driving import World

if TYPE_CHECKING:
    from tests.unit.conftest import History

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="session")
def line() -> Callable[..., TrialResult]:
    """A trial's result; `accuracy` None: it has no value."""

    def make(number: int, accuracy: float | None, **changes: Any) -> TrialResult:
        config = changes.pop("config", TrialConfig(lr=1e-3 * (number + 1)))
        metrics = {} if accuracy is None else {"accuracy": accuracy, "neg_log_loss": -0.5}
        curve = CurvePoint(rung=0, epoch=1, seconds=1.0, search_s=1.0, train_loss=0.5, metrics=metrics)
        fields: dict[str, Any] = {
            "search": "colours-1",
            "trial": f"01-{number:05d}-abcdef",
            "number": number,
            "state": TrialState.COMPLETE if accuracy is not None else TrialState.FAILED,
            "config": config.model_dump(mode="json"),
            "parameters": {"lr": config.lr},
            "origin": "sampled",
            "curve": () if accuracy is None else (curve,),
            "value": None if accuracy is None else accuracy - 0.01,
            "metrics": metrics,
            "weights_key": None if accuracy is None else f"weights-{number}",
            "created_at": EPOCH,
        }
        return TrialResult.model_validate(fields | changes)

    return make


@pytest.fixture
def cost(tiny: History) -> CostModel:
    """Of a store that has images, and neither features nor measurements."""
    store = tiny.copy()
    for key in [*store.list("features/"), *store.list("speeds/")]:
        store.delete(key)
    bench = Workbench(store, threads=2)
    return CostModel(bench, bench.splits("colours@1"))


@pytest.fixture
def world() -> World:
    return World()
