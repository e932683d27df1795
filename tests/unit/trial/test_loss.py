"""Weights, mixing and the loss."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autovision.space.config import TrialConfig
from autovision.trial.data import Labelled
from autovision.trial.loss import Mixer, sample_weights, soft_cross_entropy, soft_targets


def labelled(labels: list[int], confidence: list[float] | None = None) -> Labelled:
    return Labelled(
        tuple(map(str, range(len(labels)))),
        torch.tensor(labels),
        torch.tensor(confidence or [1.0] * len(labels)),
    )


def test_balanced_weights_give_every_class_the_same_say() -> None:
    weights = sample_weights(labelled([0, 0, 0, 1]), TrialConfig(class_weighting="balanced"), 2)
    assert weights[:3].sum().item() == pytest.approx(weights[3].item())
    assert weights.mean().item() == pytest.approx(1)


def test_an_unsure_label_weighs_less_but_never_nothing() -> None:
    weights = sample_weights(
        labelled([0, 1, 1], [1.0, 1 / 3, 0.0]), TrialConfig(confidence_weighting=True), 2
    )
    assert weights[1] / weights[0] == pytest.approx(1 / 3)
    assert weights[2] > 0


def test_the_loss_is_that_of_pytorch() -> None:
    logits, labels = torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 0, 1])
    mine = soft_cross_entropy(logits, soft_targets(labels, 4, 0.1), torch.ones(6))
    torch.testing.assert_close(mine, torch.nn.functional.cross_entropy(logits, labels, label_smoothing=0.1))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([(0.4, 0.0), (0.0, 1.0), (0.4, 1.0)]))
def test_mixing_keeps_targets_a_distribution_that_matches_the_features(
    seed: int, alphas: tuple[float, float]
) -> None:
    config = TrialConfig(mixup=alphas[0], cutmix=alphas[1], unfreeze=1)
    labels = torch.tensor([0, 0, 0, 1, 1, 1])
    # Every pixel of an image holds its label, so the mean of a mixed map is the share of class 1 in its target.
    activation = labels.float()[:, None, None, None].expand(6, 3, 8, 8)
    below = labels.float()[:, None].expand(6, 5)
    mixer = Mixer(config, np.random.default_rng(seed))
    mixed, pooled, targets, weights = mixer(activation, below, soft_targets(labels, 2, 0.0), torch.ones(6))
    assert mixed is not None
    assert pooled is not None
    torch.testing.assert_close(targets.sum(1), torch.ones(6))
    torch.testing.assert_close(mixed.mean((1, 2, 3)), targets[:, 1], atol=1e-5, rtol=0)
    torch.testing.assert_close(pooled.mean(1), targets[:, 1], atol=1e-5, rtol=0)
    torch.testing.assert_close(weights, torch.ones(6))


def test_pooled_vectors_are_never_cut() -> None:
    config = TrialConfig(cutmix=1.0, unfreeze=1)
    below = torch.randn(6, 5)
    mixer = Mixer(config, np.random.default_rng(0))
    _, same, _, _ = mixer(None, below, soft_targets(torch.tensor([0, 1, 0, 1, 0, 1]), 2, 0.0), torch.ones(6))
    assert same is below
