"""What can never work is refused, and by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from autovision.errors import InvalidInput
from autovision.records.base import now
from autovision.records.searches import ClusterView, SearchRequest
from autovision.search.sharing import preflight
from autovision.space import Choice, Space

if TYPE_CHECKING:
    from tests.unit.conftest import History


class Two(Space):
    backbone = Choice("resnet18", "resnet34")
    weights = "random"


def view(*nodes: dict[str, float]) -> ClusterView:
    return ClusterView(name="here", nodes=nodes, seen_at=now())


@pytest.fixture
def asked(tiny: History) -> SearchRequest:
    return tiny.searches[0].with_(space=Two().to_json())


@pytest.mark.parametrize(
    ("nodes", "places"),
    [([{"CPU": 2.0}], 2), ([{"CPU": 3.0}, {"CPU": 2.0}], 5), ([{"CPU": 8.0, "GPU": 2.0}], 2), ([{}], 1)],
)
def test_places(nodes: list[dict[str, float]], places: int) -> None:
    assert preflight.places(view(*nodes)) == places


def test_more_workers_than_places(asked: SearchRequest) -> None:
    assert preflight.faults(asked, view({"CPU": 2.0})) == []
    (fault,) = preflight.faults(asked.with_(workers_per_trial=3), view({"CPU": 2.0}))
    assert "3 workers per trial need 3 CPUs" in fault and "ask for at most 2" in fault
    with pytest.raises(InvalidInput, match="3 workers per trial"):
        preflight.check(asked.with_(workers_per_trial=3), view({"CPU": 2.0}))


def test_a_limit_on_size_that_no_network_meets(asked: SearchRequest) -> None:
    """Half precision or not, a ResNet-18 has 44.8 MB of weights; to know that nothing is loaded or measured."""
    preflight.check_models(asked.with_(max_size_mb=60.0, max_latency_ms=0.001), 2)
    with pytest.raises(InvalidInput, match=r"nothing in the space .* meets the limits: resnet18.*44.* MB"):
        preflight.check_models(asked.with_(max_size_mb=40.0), 2)


def test_memory_that_no_node_has(asked: SearchRequest) -> None:
    preflight.check_models(asked, 2, view({"CPU": 2.0, "memory": 100e6}, {"CPU": 2.0, "memory": 400e6}))
    preflight.check_models(asked, 2, view({"CPU": 2.0}))
    with pytest.raises(
        InvalidInput, match=r"resnet18, needs 34. MB at least, and the largest node has 320 MB"
    ):
        preflight.check_models(asked, 2, view({"CPU": 2.0, "memory": 320e6}))


def test_what_is_worth_knowing(asked: SearchRequest) -> None:
    cpus, gpus = view({"CPU": 4.0}), view({"CPU": 4.0, "GPU": 2.0})
    assert preflight.remarks(asked, cpus) == []
    (short,) = preflight.remarks(asked.with_(budget_s=2.0), cpus)
    assert "a budget of 2 s ends before the first worker has started" in short
    together = asked.with_(workers_per_trial=2)
    assert "train on a CPU each" in preflight.remarks(together, cpus)[0]
    assert preflight.remarks(together, gpus) == []
