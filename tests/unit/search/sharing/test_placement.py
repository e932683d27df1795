from __future__ import annotations

import pytest

from autovision.errors import InvalidInput
from autovision.search.sharing.placement import Placement, placement, room


@pytest.mark.parametrize(
    ("nodes", "workers", "expected"),
    [
        ([{"CPU": 2.0}], 1, Placement(2, 1, False)),
        ([{"CPU": 1.0}], 1, Placement(1, 1, False)),
        ([{"CPU": 0.5}], 1, Placement(1, 1, False)),
        ([{}], 1, Placement(1, 1, False)),
        ([], 1, Placement(1, 1, False)),
        ([{"CPU": 16.0, "GPU": 4.0}], 1, Placement(4, 4, True)),
        ([{"CPU": 7.0, "GPU": 2.0}], 1, Placement(2, 3, True)),
        ([{"CPU": 2.0, "GPU": 8.0}], 1, Placement(2, 1, True)),
        ([{"CPU": 8.0, "GPU": 0.5}], 1, Placement(8, 1, False)),
        ([{"CPU": 2.0}], 2, Placement(1, 1, False)),
        ([{"CPU": 5.0}], 2, Placement(2, 1, False)),
        ([{"CPU": 2.5}, {"CPU": 1.5}], 3, Placement(1, 1, False)),
        ([{"CPU": 16.0, "GPU": 4.0}, {"CPU": 64.0}], 2, Placement(2, 4, True)),
        ([{"CPU": 16.0, "GPU": 4.0}, {"CPU": 8.0, "GPU": 4.0}], 4, Placement(2, 2, True)),
        ([{"CPU": 0.0, "GPU": 4.0}, {"CPU": 4.0, "GPU": 4.0}], 4, Placement(1, 1, True)),
        ([{"CPU": 16.0, "GPU": 2.0, "trials_per_gpu": 4.0}], 1, Placement(8, 2, True, 4)),
        ([{"CPU": 3.0, "GPU": 1.0, "trials_per_gpu": 4.0}], 1, Placement(3, 1, True, 4)),
        ([{"CPU": 8.0, "GPU": 1.0, "trials_per_gpu": 0.5}], 1, Placement(1, 8, True)),
        ([{"CPU": 8.0, "trials_per_gpu": 4.0}], 1, Placement(8, 1, False)),
        # The least holds for all: a trial asks for the same wherever it comes to run.
        (
            [
                {"CPU": 8.0, "GPU": 1.0, "trials_per_gpu": 4.0},
                {"CPU": 8.0, "GPU": 1.0, "trials_per_gpu": 2.0},
                {"CPU": 64.0, "trials_per_gpu": 1.0},
            ],
            1,
            Placement(4, 4, True, 2),
        ),
    ],
)
def test_placement(nodes: list[dict[str, float]], workers: int, expected: Placement) -> None:
    assert placement(nodes, workers) == expected


@pytest.mark.parametrize(
    ("nodes", "workers", "fault"),
    [
        ([{"CPU": 2.0}], 3, "3 workers per trial need 3 CPUs at once, one each, and this cluster has 2"),
        ([{"CPU": 0.5}, {"CPU": 1.5}], 2, "need 2 CPUs at once, one each, and this cluster has 1"),
        ([{"CPU": 64.0, "GPU": 2.0}], 4, "need 4 GPUs at once, one each, and this cluster has 2"),
        ([{"CPU": 0.0, "GPU": 4.0}], 2, "need 2 GPUs at once, one each, and this cluster has 0"),
        (
            [{"CPU": 8.0, "GPU": 4.0, "trials_per_gpu": 2.0}],
            2,
            "need a GPU each, and on this cluster 2 trials",
        ),
    ],
)
def test_workers_that_can_never_be_placed_are_refused(
    nodes: list[dict[str, float]], workers: int, fault: str
) -> None:
    with pytest.raises(InvalidInput, match=fault):
        placement(nodes, workers)


@pytest.mark.parametrize(
    ("nodes", "workers", "trials"),
    [
        ([{"CPU": 2.0}], 1, 2),
        ([{"CPU": 2.0}, {"CPU": 4.0}], 1, 6),
        ([{"CPU": 2.0}, {"CPU": 4.0}], 4, 1),
        ([{"CPU": 16.0, "GPU": 4.0}], 1, 16),
        ([], 1, 1),
    ],
)
def test_nodes_that_came_or_went_have_room_for_trials_as_they_are(
    nodes: list[dict[str, float]], workers: int, trials: int
) -> None:
    assert room(nodes, placement([{"CPU": 2.0}]), workers) == trials


def test_nodes_with_too_few_processors_for_each_gpu_have_room_for_fewer() -> None:
    place = placement([{"CPU": 16.0, "GPU": 2.0}])
    assert (place.cpus, place.gpu) == (8, True)
    assert room([{"CPU": 16.0, "GPU": 2.0}, {"CPU": 8.0, "GPU": 8.0}, {"CPU": 64.0}], place) == 3


def test_what_a_worker_takes() -> None:
    assert Placement(4, 3, False).of_worker() == {"cpu": 3.0}
    assert Placement(4, 3, True).of_worker() == {"cpu": 3.0, "gpu": 1.0}
    assert Placement(4, 3, True, 4).of_worker() == {"cpu": 3.0, "gpu": 0.25}


def test_nodes_that_came_share_their_gpus_as_the_search_began() -> None:
    place = placement([{"CPU": 4.0, "GPU": 1.0, "trials_per_gpu": 2.0}])
    assert room([{"CPU": 4.0, "GPU": 1.0}, {"CPU": 8.0, "GPU": 3.0, "trials_per_gpu": 4.0}], place) == 6
