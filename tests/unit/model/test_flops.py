"""Arithmetic per stage."""

from __future__ import annotations

import pytest

from autovision.model.flops import stage_gflops


def test_a_known_network_takes_what_is_known_of_it() -> None:
    # He et al. 2016 give 1.8 * 10^9 multiply-adds for ResNet-18 at 224 px; each is two operations.
    stages = stage_gflops("resnet18", 224)
    assert len(stages) == 5
    assert sum(stages) == pytest.approx(2 * 1.8, rel=0.03)


@pytest.mark.parametrize("backbone", ["test_resnet", "test_efficientnet", "tf_efficientnet_lite0"])
def test_twice_the_resolution_takes_four_times_as_much(backbone: str) -> None:
    small, large = stage_gflops(backbone, 64), stage_gflops(backbone, 128)
    assert all(each > 0 for each in small)
    assert sum(large) == pytest.approx(4 * sum(small), rel=0.05)


def test_without_a_resolution_it_is_the_backbones_own() -> None:
    assert stage_gflops("resnet18", None) == stage_gflops("resnet18", 224)
