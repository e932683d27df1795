"""BatchNorm statistics, estimated anew."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from autovision.model import bundle
from autovision.model.batchnorm import norms, re_estimated
from autovision.space.config import TrialConfig

CONFIG = TrialConfig(backbone="test_resnet", weights="random", resolution=32)


def pixels(n: int, level: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(level, level + 60, (n, 32, 32, 3), dtype=np.uint8)


def test_images_of_another_light_come_to_be_seen_as_those_of_before() -> None:
    """The first layer's statistics are those of the images; its output has no mean and a variance of one."""
    network = bundle.build_network(CONFIG, 2)
    dark = pixels(200, 0)
    moved = re_estimated(network, dark)
    layer, found = norms(moved)[0], []
    layer.register_forward_pre_hook(lambda module, inputs: found.append(inputs[0]))
    with torch.no_grad():
        moved(torch.from_numpy(dark))
    seen = found[0].transpose(0, 1).flatten(1)
    assert layer.running_mean is not None and layer.running_var is not None
    share = 200 / 216
    torch.testing.assert_close(layer.running_mean, share * seen.mean(1), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(layer.running_var, share * seen.var(1) + 1 - share, rtol=0.05, atol=0.02)


def test_nothing_but_the_statistics_changes_and_the_network_that_was_given_does_not() -> None:
    network = bundle.build_network(CONFIG, 2)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    moved = re_estimated(network, pixels(40, 100))
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    changed = {name for name, tensor in moved.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed and all(name.endswith(("running_mean", "running_var")) for name in changed)
    assert not any(module.training for module in moved.modules())
    assert [layer.momentum for layer in norms(moved)] == [layer.momentum for layer in norms(network)]


def test_the_last_batch_counts_no_more_than_the_first() -> None:
    network = bundle.build_network(CONFIG, 2)
    images = np.concatenate([pixels(48, 0), pixels(48, 150, seed=1)])
    mixed = images[np.random.default_rng(2).permutation(96)]
    one, other = (
        re_estimated(network, mixed[order]) for order in (np.arange(96), np.arange(96)[::-1].copy())
    )
    for first, second in zip(norms(one), norms(other), strict=True):
        torch.testing.assert_close(first.running_mean, second.running_mean, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("backbone", "has"), [("test_resnet", True), ("test_vit", False)])
def test_not_every_network_has_such_layers(backbone: str, has: bool) -> None:
    network = bundle.build_network(TrialConfig(backbone=backbone, weights="random"), 2)
    assert bool(norms(network)) is has
