"""AutoVision's own policy, ready to be simulated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from autovision.features.views import Views
from autovision.records.searches import SearchRequest
from autovision.records.trials import TrialResult
from autovision.search.costing.cost import CostModel
from autovision.search.driver import Driver
from autovision.search.warm import Start
from autovision.space import Space
from autovision.space.config import TrialConfig
from autovision.store import MemoryStore
from autovision.store.protocol import Store
from autovision.testing.simulation.lab import Lab, Table, VirtualClock, channels
from autovision.testing.simulation.shelf import FeatureShelf
from autovision.testing.simulation.workers import Policy, Simulation
from autovision.trial.splits import DataSplits
from autovision.trial.workbench import Workbench


@dataclass
class _Images:
    """A split, of which only the sizes are known."""

    count: int
    classes: int
    images: tuple[str, ...] = ()

    def __len__(self) -> int:
        return self.count


@dataclass
class _Splits:
    train: _Images
    validation: _Images


@dataclass
class _Bench:
    """What a cost model needs to know, and where it keeps its measurements."""

    store: Store

    def channels(self, config: TrialConfig) -> list[int]:
        return channels(config.backbone, config.resolution)


class SimulatedCost(CostModel):
    """The cost model as searches have it, which counts missing features on a shelf."""

    def __init__(self, lab: Lab, shelf: FeatureShelf, store: Store, clock: VirtualClock) -> None:
        splits = _Splits(*(_Images(lab.images[name], lab.classes) for name in ("train", "validation")))
        self._shelf = shelf
        super().__init__(cast(Workbench, _Bench(store)), cast(DataSplits, splits), warm=False, clock=clock)

    def _lacking(self, config: TrialConfig, split: str, views: Views, cut: int | None) -> int:
        tables = (Table(config.backbone, config.resolution, view, cut, split) for view in views.names())
        return sum(self._shelf.missing(table) for table in tables)


def simulated_driver(
    lab: Lab,
    space: Space,
    clock: VirtualClock,
    shelf: FeatureShelf,
    *,
    budget_s: float,
    seed: int = 0,
    metric: str = "accuracy",
    scheduler: str = "halving",
    max_trials: int | None = None,
    store: Store | None = None,
    starts: Sequence[Start] | None = None,
    ledger: Sequence[TrialResult] = (),
    driver: type[Driver] = Driver,
    **settings: Any,
) -> Driver:
    """A driver whose search begins now on the virtual clock.

    Args:
        store: None: one in memory.
        starts: the points to try first; None: the space's default.
        driver: a subclass that decides otherwise.
        settings: further fields of the driver.
    """
    request = SearchRequest(
        dataset="simulated",
        dataset_version=1,
        dataset_digest="0" * 64,
        space=space.to_json(),
        budget_s=budget_s,
        max_trials=max_trials,
        seed=seed,
        metric=metric,
        scheduler=scheduler,
    )
    store = store or MemoryStore()
    settings.setdefault("images", lab.images["validation"])
    return driver(
        store=store,
        request=request,
        space=space,
        cost=SimulatedCost(lab, shelf, store, clock),
        starts=list(starts) if starts is not None else [Start(space.default(), "default")],
        ledger=list(ledger),
        attempt=1,
        deadline=clock.now + budget_s,
        search_started=clock.now,
        threads=1,
        clock=clock,
        **settings,
    )


def simulate(
    lab: Lab, space: Space, *, budget_s: float, workers: int = 1, seed: int = 0, **settings: Any
) -> tuple[Driver, Simulation]:
    """Run AutoVision's search to its end."""
    clock = VirtualClock()
    shelf = FeatureShelf(lab, clock)
    driver = simulated_driver(lab, space, clock, shelf, budget_s=budget_s, seed=seed, **settings)
    simulation = Simulation(cast(Policy, driver), lab, clock, shelf, workers=workers)
    simulation.run()
    driver.close()
    return driver, simulation
