"""What a budget buys, said before it is spent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from autovision.records.searches import PriceTable
from autovision.records.trials import CurvePoint
from autovision.search import requests
from autovision.search.costing.cost import CostModel
from autovision.search.estimates.estimate import Estimate, estimate
from autovision.search.estimates.preview import preview
from autovision.space import Choice, Float, Space

if TYPE_CHECKING:
    from tests.unit.conftest import History


class Varied(Space):
    backbone = Choice("test_resnet", "test_efficientnet")
    weights = "random"
    resolution = Choice(64, 96, when={"backbone": "test_resnet"})
    unfreeze = Choice(0, 1)
    lr = Float(1e-3, 1e-1)
    epochs = 9
    batch_size = 16


FINISH_S = 6.0


class Heads(Space):
    backbone = "test_resnet"
    weights = "random"
    resolution = 64
    lr = Float(1e-3, 1e-1)


def of(cost: CostModel, budget_s: float, space: Space | None = None, cpus: int = 2) -> Estimate:
    return estimate(cost, space or Varied(), budget_s, cpus=cpus, finish_s=FINISH_S, memory=True)


def test_more_seconds_and_more_cpus_buy_more(cost: CostModel) -> None:
    little, much, wide = of(cost, 60), of(cost, 600), of(cost, 60, cpus=8)
    assert little.heads is not None and much.heads is not None and wide.heads is not None
    assert 0 < little.heads.value < much.heads.value
    assert little.tuned is not None and much.tuned is not None
    assert 0 < little.tuned.value < little.heads.value and little.tuned.value < much.tuned.value
    assert little.heads.value < wide.heads.value
    for found in (little.heads, little.tuned, little.first_s):
        assert found.low <= found.value <= found.high


def test_every_backbone_is_named_at_the_resolutions_that_it_may_have(cost: CostModel) -> None:
    found = of(cost, 600)
    sizes = {(each.backbone, each.resolution) for each in found.features}
    assert sizes == {("test_resnet", 64), ("test_resnet", 96), ("test_efficientnet", None)}
    seconds = [each.seconds.value for each in found.features]
    assert seconds == sorted(seconds) and all(each.fits for each in found.features)
    left = estimate(cost, Varied(), 600, cpus=2, finish_s=FINISH_S, left_out=frozenset({"test_resnet"}))
    assert {each.backbone for each in left.features} == {"test_efficientnet"}


def test_a_budget_that_is_too_small_is_called_so(cost: CostModel) -> None:
    found = of(cost, 5)
    assert found.heads is not None
    assert not found.enough and found.heads.value == 0.0
    assert "likely too few" in str(found) and not any(each.fits for each in found.features)
    assert of(cost, 600).enough


def test_a_space_of_heads_buys_no_fine_tuning(cost: CostModel) -> None:
    found = of(cost, 60, Heads())
    assert found.tuned is None and "fine-tuning" not in str(found)
    assert 0 < (found.memory_mb or 0.0) < (of(cost, 60).memory_mb or 0.0)
    assert estimate(cost, Heads(), 60, cpus=2, finish_s=FINISH_S).memory_mb is None, "nobody asked"


class Tunings(Heads):
    unfreeze = Choice(1, 2)


class Adapters(Heads):
    adapters = Choice(2, 4)


@pytest.mark.parametrize("space", [Tunings(), Adapters()])
def test_a_space_without_heads_buys_none(space: Space, cost: CostModel) -> None:
    found = of(cost, 60, space)
    assert found.heads is None and "heads" not in str(found)
    assert found.tuned is not None and f"buy about {found.tuned} fine-tunings" in str(found)
    assert found.first_s.value > of(cost, 60, Heads()).first_s.value


def test_it_says_what_it_rests_on(cost: CostModel) -> None:
    assert "from arithmetic alone" in str(of(cost, 60))
    head = Varied().config({**Varied.default(), "unfreeze": 0})
    for _ in range(3):
        begun = cost.begin(head)
        seconds = 5 * sum(each for _, each in begun.work.parts(1))
        point = CurvePoint(rung=0, epoch=1, seconds=seconds, search_s=0, train_loss=0, metrics={})
        cost.observe(begun, [point], 5 * (begun.work.compile_s + begun.work.features_s))
    found = of(cost, 60)
    assert "measured on nodes of this kind" in found.basis
    assert found.features_s.high / found.features_s.low < 8


def test_a_request_is_estimated_without_being_submitted(tiny: History) -> None:
    store = tiny.copy()
    request = requests.make_request(store, "colours@2", Heads(), budget_s=60.0)
    before = set(store.list())
    found = preview(store, request, PriceTable(currency="EUR", cpu=1.0))
    assert set(store.list()) == before
    assert found.features[0].seconds.value == 0.0, "these features are there"
    assert found.per_hour is not None and found.cost == pytest.approx(found.per_hour / 60)
    assert "EUR" in str(found)
    assert preview(store, request, None).cost is None
