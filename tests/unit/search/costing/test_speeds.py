"""What is believed of the parts of a trial."""

from __future__ import annotations

import math

import numpy as np
import pytest

from autovision.search.costing import speeds
from autovision.search.costing.speeds import Belief, Measurement, NodeKind, Speeds
from autovision.store import MemoryStore, keys

NODE = NodeKind(processor="a CPU", threads=1, precision="f32")


def measured(ratio: float, backbone: str = "a", detail: str = "x", part: str = "features") -> Measurement:
    return Measurement(part=part, backbone=backbone, detail=detail, expected_s=2.0, seconds=2.0 * ratio)


def believed(*seen: Measurement, at: tuple[str, str, str] = ("features", "a", "x")) -> Belief:
    known = Speeds()
    for one in seen:
        known.add(one)
    return known.belief(*at)


def test_without_measurements_arithmetic_is_believed_and_hardly() -> None:
    prior = believed()
    assert prior.mean == 0.0 and prior.sd > 1.0 and prior.measured == 0


def test_it_is_the_posterior_of_the_nested_model() -> None:
    """Against the same model written as one Gaussian: every pair of measurements has the variance that they share."""
    seen = [
        *(measured(math.exp(value), "a", "x") for value in (1.0, 1.1, 0.9)),
        *(measured(math.exp(value), "a", "y") for value in (1.3, 1.35)),
        *(measured(math.exp(value), "b", "x") for value in (0.5, 0.45, 0.55, 0.5)),
    ]
    known = speeds._Seen()
    for one in seen:
        known.add(one, 1.0)
    tree = speeds._Tree(known)
    noise = 0.04
    tree._noise = noise
    tree._solve(np.ones(len(seen)))

    def shared(a: tuple[str, str], b: tuple[str, str]) -> float:
        found = speeds._PART_SD**2
        found += speeds._BACKBONE_SD**2 * (a[0] == b[0])
        return found + speeds._CONFIGURATION_SD**2 * (a == b)

    groups = [(one.backbone, one.detail) for one in seen]
    values = np.array([one.log_ratio for one in seen])
    covariance = np.array([[shared(a, b) for b in groups] for a in groups]) + noise * np.eye(len(seen))
    for group in [("a", "x"), ("a", "y"), ("b", "x"), ("a", "new"), ("b", "new"), ("new", "x")]:
        cross = np.array([shared(group, other) for other in groups])
        mean = cross @ np.linalg.solve(covariance, values)
        variance = shared(group, group) - cross @ np.linalg.solve(covariance, cross)
        belief = tree.belief(*group)
        assert belief.mean == pytest.approx(mean)
        assert belief.sd == pytest.approx(math.sqrt(variance + noise))


def test_one_odd_measurement_decides_nothing() -> None:
    steady = [measured(2.0) for _ in range(8)]
    odd = believed(*steady[:4], measured(200.0), *steady[4:])
    assert math.exp(odd.mean) == pytest.approx(2.0, rel=0.2)


def test_a_node_that_became_slower_is_noticed() -> None:
    before, after = [measured(1.0)] * 40, [measured(4.0)] * 40
    assert math.exp(believed(*before, *after).mean) > 2.8


def test_a_thousand_measurements_are_as_well_known_as_the_latest_of_them_and_all_are_counted() -> None:
    rng = np.random.default_rng(0)
    seen = [measured(math.exp(value)) for value in rng.normal(0.7, 0.2, 1000)]
    latest, whole = believed(*seen[-speeds._REMEMBERED :]), believed(*seen)
    assert (whole.mean, whole.sd) == (latest.mean, latest.sd)
    assert (whole.measured, latest.measured) == (1000, speeds._REMEMBERED)
    older = believed(*[measured(50.0)] * 5, *seen[-speeds._REMEMBERED :])
    assert older == Belief(latest.mean, latest.sd, latest.measured + 5), "what is that old has no say"


def test_another_part_says_nothing() -> None:
    assert believed(measured(9.0, part="epoch")) == believed()


def test_what_was_measured_earlier_counts_less_than_what_is_measured_now() -> None:
    known = Speeds([measured(1.0)] * 4)
    assert known.belief("features", "a", "x").measured == 4
    first = known.belief("features", "a", "x").mean
    for _ in range(4):
        known.add(measured(4.0))
    assert first < 0.1 and math.exp(known.belief("features", "a", "x").mean) > 2.4


def test_the_store_keeps_the_latest_of_each_configuration() -> None:
    store = MemoryStore()
    assert speeds.read(store, NODE) == ()
    speeds.keep(store, NODE, [])
    assert not store.exists(keys.speeds(NODE.id)), "nothing to say"
    speeds.keep(store, NODE, [measured(1.0 + i) for i in range(20)])
    speeds.keep(store, NODE, [measured(7.0, "b"), measured(50.0)])
    kept = speeds.read(store, NODE)
    assert [one.seconds / 2 for one in kept if one.backbone == "a"] == [14, 15, 16, 17, 18, 19, 20, 50]
    assert [one.seconds / 2 for one in kept if one.backbone == "b"] == [7]


@pytest.mark.parametrize(
    "changes",
    [{"processor": "another"}, {"threads": 2}, {"precision": "bf16"}, {"gpu": True}, {"workers": 2}],
)
def test_another_kind_of_node_has_its_own(changes: dict[str, object]) -> None:
    store = MemoryStore()
    speeds.keep(store, NODE, [measured(3.0)])
    assert speeds.read(store, NODE.with_(**changes)) == ()


def test_kinds_are_told_to_people() -> None:
    assert str(NODE) == "a CPU, 1 thread a trial, f32"
    assert str(NODE.with_(gpu=True, processor="H100", workers=2)) == "H100, 2 workers a trial, f32"
