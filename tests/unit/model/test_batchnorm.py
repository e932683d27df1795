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


def normalized(network: torch.nn.Module, images: np.ndarray) -> torch.Tensor:
    """(channels,) mean of what the first layer with statistics makes of images, before its weights and activation."""
    layer, found = norms(network)[0], []
    hook = layer.register_forward_pre_hook(lambda module, inputs: found.append(inputs[0]))
    with torch.no_grad():
        network(torch.from_numpy(images))
    hook.remove()
    assert layer.running_mean is not None and layer.running_var is not None
    mean = found[0].transpose(0, 1).flatten(1).mean(1)
    return (mean - layer.running_mean) / (layer.running_var + layer.eps).sqrt()


def test_images_of_another_light_come_out_as_those_of_before_did() -> None:
    network = bundle.build_network(CONFIG, 2)
    layer = norms(network)[0]
    assert layer.running_mean is not None
    layer.running_mean += 0.3  # of frozen stages: not what its own images have
    usual, dark = pixels(200, 120), pixels(200, 0)
    came_out, before = normalized(network, usual), normalized(network, dark)
    after = normalized(re_estimated(network, dark, usual), dark)
    assert ((before - came_out).abs() > 0.01).any()
    assert ((after - came_out).abs() < 0.15 * (before - came_out).abs() + 1e-3).all()


def test_images_like_those_of_before_change_next_to_nothing() -> None:
    """Whatever statistics are stored: they need not be those of what the network was taught on."""
    network = bundle.build_network(CONFIG, 2)
    for layer in norms(network):
        assert layer.running_mean is not None and layer.running_var is not None
        layer.running_mean += 0.2
        layer.running_var *= 3
    some, others = pixels(96, 60), pixels(96, 60, seed=1)
    moved = re_estimated(network, some, others)
    with torch.no_grad():
        said, as_before = (each(torch.from_numpy(others))[0] for each in (moved, network))
    torch.testing.assert_close(said, as_before, rtol=0.05, atol=0.02)


def test_a_channel_that_is_constant_stays_as_it_is() -> None:
    """As of nets whose channels are dead on images of one domain, whatever the backbone's own images gave."""
    network = bundle.build_network(CONFIG, 2)
    layer = norms(network)[0]
    assert layer.running_mean is not None and layer.running_var is not None
    layer.running_mean[0], layer.running_var[0] = 0.5, 0.2
    before = next(module for module in network.modules() if isinstance(module, torch.nn.Conv2d))
    with torch.no_grad():
        before.weight[0] = 0.0
        if before.bias is not None:
            before.bias[0] = 0.0
    images = pixels(64, 60)
    moved = normalized(re_estimated(network, images, images), images)
    torch.testing.assert_close(moved[0], normalized(network, images)[0], rtol=1e-3, atol=1e-3)


def test_nothing_but_the_statistics_changes_and_the_network_that_was_given_does_not() -> None:
    network = bundle.build_network(CONFIG, 2)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    moved = re_estimated(network, pixels(40, 100), pixels(40, 30))
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
        re_estimated(network, mixed[order], pixels(32, 90))
        for order in (np.arange(96), np.arange(96)[::-1].copy())
    )
    for first, second in zip(norms(one), norms(other), strict=True):
        torch.testing.assert_close(first.running_mean, second.running_mean, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("backbone", "has"), [("test_resnet", True), ("test_vit", False)])
def test_not_every_network_has_such_layers(backbone: str, has: bool) -> None:
    network = bundle.build_network(TrialConfig(backbone=backbone, weights="random"), 2)
    assert bool(norms(network)) is has
