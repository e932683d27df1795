from __future__ import annotations

import pytest

from autovision.trial.group import room_for


@pytest.mark.parametrize(
    ("nodes", "cpus", "gpu", "workers"),
    [
        ([{"CPU": 2.0}, {"CPU": 1.0}], 1, False, 3),
        ([{"CPU": 3.0}, {"CPU": 1.0}, {}], 2, False, 1),
        ([{"CPU": 8.0, "GPU": 2.0}, {"CPU": 64.0}], 4, True, 2),
        ([{"CPU": 8.0, "GPU": 4.0}], 4, True, 2),
        ([], 1, False, 0),
    ],
)
def test_room_for_workers(nodes: list[dict[str, float]], cpus: int, gpu: bool, workers: int) -> None:
    assert room_for(nodes, cpus, gpu) == workers
