"""What of a space meets limits on latency, memory and size."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autovision.errors import AutoVisionError, InvalidInput
from autovision.model.bundle import build_network, weights_of
from autovision.model.footprint import Footprint, measure, size_mb
from autovision.records.searches import SearchRequest
from autovision.search.constraints.limits import Limits, gflops, heaviest
from autovision.space import Choice, Integer, Space
from autovision.space.config import TrialConfig

RESOLUTIONS = (64, 96, 128, 160)


class Sizes(Space):
    backbone = Choice("test_resnet", "test_vit")
    weights = "random"
    resolution = Choice(*RESOLUTIONS, when={"backbone": "test_resnet"})
    drop_stages = Integer(0, 2)
    head = Choice("linear", "mlp")


def request_of(**limits: Any) -> SearchRequest:
    space = Sizes.to_json()
    return SearchRequest(
        dataset="d", dataset_version=1, dataset_digest="0", space=space, budget_s=60.0, **limits
    )


def milliseconds(config: TrialConfig) -> float:
    """A machine on which a network takes as long as it computes."""
    return 1000 * gflops(config)


class Stopwatch:
    def __init__(self) -> None:
        self.measured: list[TrialConfig] = []

    def __call__(self, config: TrialConfig) -> Footprint:
        self.measured.append(config)
        ms = milliseconds(config)
        return Footprint(runtime="paper", latency_ms=ms, memory_mb=100 + ms, size_mb=1.0)


def limits_of(space: Space | None = None, **limits: Any) -> tuple[Limits, Stopwatch]:
    watch = Stopwatch()
    found = Limits(request_of(**limits), 2, watch)
    found.explore(space or Sizes())
    return found, watch


def every(backbone: str = "test_resnet") -> list[TrialConfig]:
    return [
        TrialConfig(backbone=backbone, weights="random", resolution=resolution, drop_stages=depth)
        for resolution in RESOLUTIONS
        for depth in range(3)
    ]


@settings(max_examples=25, deadline=None)
@given(share=st.floats(0.0, 1.2))
def test_exactly_what_is_fast_enough_is_admitted(share: float) -> None:
    slowest, fastest = max(map(milliseconds, every())), min(map(milliseconds, every()))
    limit = fastest + share * (slowest - fastest)
    found, watch = limits_of(max_latency_ms=limit)
    for config in every():
        assert (found.fault(config) is None) == (milliseconds(config) <= limit * (1 + 1e-9))
    of_resnet = [config for config in watch.measured if config.backbone == "test_resnet"]
    assert len(of_resnet) <= 6, "found by bisection among twelve"


def test_where_the_largest_is_fast_enough_nothing_else_is_measured() -> None:
    found, watch = limits_of(max_latency_ms=1e6)
    assert sorted(config.backbone for config in watch.measured) == ["test_resnet", "test_vit"]
    assert found.notes == []
    assert all(found.fault(config) is None for config in every())


def test_without_limits_nothing_is_measured() -> None:
    found, watch = limits_of()
    assert (watch.measured, found.notes, found.fault(every()[0])) == ([], [], None)


def test_what_is_left_out_is_told_with_its_figure() -> None:
    middle = sorted(map(milliseconds, every()))[6]
    found, _ = limits_of(max_latency_ms=middle)
    (note,) = [note for note in found.notes if note.startswith("test_resnet")]
    assert f"more than {middle:g} ms (paper)" in note and "meets the limits" in note


def test_by_how_much_a_limit_is_missed_is_told_in_figures_of_the_smallest_that_does() -> None:
    ascending = sorted(map(milliseconds, every()))
    found, _ = limits_of(max_latency_ms=ascending[6], max_size_mb=1e3)
    (excess,) = [each for each in found.excesses if each.networks == "test_resnet"]
    assert (excess.of, excess.unit, excess.runtime) == ("latency", "ms", "paper")
    next_one = min(ms for ms in ascending if ms > ascending[6])
    assert (excess.value, excess.limit) == (pytest.approx(next_one), ascending[6])
    limit = (size_mb(every()[0], 2) + size_mb(every()[2], 2)) / 2
    small, _ = limits_of(max_size_mb=limit)
    (excess,) = [each for each in small.excesses if each.networks == "test_resnet"]
    assert (excess.of, excess.limit, excess.runtime) == ("size", limit, "")
    assert limit < excess.value <= 1.1 * size_mb(every()[0], 2)
    assert limits_of(max_latency_ms=1e6)[0].excesses == []


def test_memory_is_a_limit_like_latency() -> None:
    middle = sorted(map(milliseconds, every()))[6]
    found, _ = limits_of(max_memory_mb=100 + middle)
    assert {found.fault(config) is None for config in every()} == {True, False}
    assert any("MB of memory" in note for note in found.notes)


def test_the_size_is_that_of_the_file_of_weights() -> None:
    for config in (every()[0], every()[2], TrialConfig(backbone="test_vit", head="mlp", head_width=512)):
        file = weights_of(build_network(config.with_(weights="random"), 2))
        assert size_mb(config, 2) == pytest.approx(len(file) / 1e6, abs=0.03)


def test_a_limit_on_size_alone_needs_no_measurement() -> None:
    whole, least = size_mb(every()[0], 2), size_mb(every()[2], 2)
    found, watch = limits_of(max_size_mb=(whole + least) / 2)
    assert watch.measured == []
    assert found.fault(every()[0]) is not None and found.fault(every()[2]) is None
    assert "MB of weights" in (found.fault(every()[0]) or "")


@pytest.mark.parametrize("limits", [{"max_latency_ms": 1e-6}, {"max_size_mb": 1e-6}, {"max_memory_mb": 1.0}])
def test_a_space_of_which_nothing_is_left_is_refused(limits: dict[str, float]) -> None:
    with pytest.raises(
        InvalidInput, match=r"nothing in the space 'Sizes' meets the limits: test_resnet: .*raise a limit"
    ):
        limits_of(**limits)


def test_families_are_judged_apart() -> None:
    """Eight views take eight times as long; attention is another network."""

    class Views(Space):
        backbone = "test_resnet"
        weights = "random"
        resolution = Choice(*RESOLUTIONS)
        test_time_augmentation = Choice("none", "dihedral")
        head = Choice("linear", "attention")

    plain = TrialConfig(backbone="test_resnet", weights="random", resolution=160)
    found, watch = limits_of(Views(), max_latency_ms=1.01 * milliseconds(plain))
    assert found.fault(plain) is None and found.fault(plain.with_(head="attention")) is None
    assert found.fault(plain.with_(test_time_augmentation="dihedral")) is not None
    assert len({(c.test_time_augmentation, c.head == "attention") for c in watch.measured}) == 4


def test_the_other_parts_are_those_that_take_most() -> None:
    class Parts(Space):
        backbone = "test_resnet"
        weights = "random"
        resolution = 64
        taps = Integer(1, 3)
        pooling = Choice("avg", "avgmax")
        head = Choice("linear", "mlp")
        head_width = Integer(16, 128, when={"head": "mlp"})
        adapters = Integer(0, 2)

    found = list(heaviest(Parts()))
    assert {(c.taps, c.pooling, c.head, c.head_width) for c in found} == {(3, "avgmax", "mlp", 128)}
    assert sorted(c.adapters for c in found) == [0, 2]


def test_a_real_network_is_measured_in_a_process_of_its_own() -> None:
    small = TrialConfig(backbone="test_resnet", weights="random", resolution=64)
    found = measure(small, 2)
    assert 0.01 < found.latency_ms < 1000 and 50 < found.memory_mb < 8000
    assert found.size_mb == pytest.approx(size_mb(small, 2))
    assert "threads" in found.runtime


def test_what_cannot_be_served_is_told() -> None:
    with pytest.raises(AutoVisionError, match="what serving 'nothing_like_it' takes could not be measured"):
        measure(TrialConfig(backbone="nothing_like_it"), 2)
