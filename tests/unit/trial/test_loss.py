"""Targets, weights and the loss."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from autovision.space.config import TrialConfig
from autovision.trial.data import Labelled
from autovision.trial.loss import class_shares, log_prior, losses, probabilities, sample_weights, soft_targets


def labelled(labels: list[int], confidence: list[float] | None = None) -> Labelled:
    return Labelled(
        tuple(map(str, range(len(labels)))),
        F.one_hot(torch.tensor(labels)).float(),
        torch.tensor(confidence or [1.0] * len(labels)),
    )


def several(targets: list[list[int]]) -> Labelled:
    n = len(targets)
    return Labelled(tuple(map(str, range(n))), torch.tensor(targets).float(), torch.ones(n), multi_label=True)


def test_balanced_weights_give_every_class_the_same_say() -> None:
    weights = sample_weights(labelled([0, 0, 0, 1]), TrialConfig(class_weighting="balanced"))
    assert weights[:3].sum().item() == pytest.approx(weights[3].item())
    assert weights.mean().item() == pytest.approx(1)


def test_an_image_of_several_labels_weighs_as_their_mean_and_one_of_none_is_not_lost() -> None:
    of = several([[1, 0], [1, 0], [1, 1], [0, 0]])
    weights = sample_weights(of, TrialConfig(class_weighting="balanced"))
    common, both, none = weights[0], weights[2], weights[3]
    assert common < both
    assert none > 0
    # Class 0 is three times as frequent as class 1.
    assert both / common == pytest.approx((1 / 3 + 1) / 2 / (1 / 3))


def test_an_unsure_label_weighs_less_but_never_nothing() -> None:
    weights = sample_weights(labelled([0, 1, 1], [1.0, 1 / 3, 0.0]), TrialConfig(confidence_weighting=True))
    assert weights[1] / weights[0] == pytest.approx(1 / 3)
    assert weights[2] > 0


def test_cross_entropy_is_that_of_pytorch() -> None:
    logits, of = torch.randn(6, 4), labelled([0, 1, 2, 3, 0, 1])
    mine = losses(logits, soft_targets(of, 0.1), TrialConfig(), multi_label=False)
    theirs = F.cross_entropy(logits, of.targets.argmax(1), label_smoothing=0.1, reduction="none")
    torch.testing.assert_close(mine, theirs)


def test_binary_cross_entropy_is_that_of_pytorch() -> None:
    logits, of = torch.randn(4, 2), several([[1, 0], [1, 1], [0, 0], [0, 1]])
    targets = soft_targets(of, 0.2)
    assert targets[0].tolist() == pytest.approx([0.9, 0.1])
    mine = losses(logits, targets, TrialConfig(), multi_label=True)
    theirs = F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(1)
    torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("multi_label", [False, True])
def test_the_focal_loss_cares_less_for_what_is_right_already(multi_label: bool) -> None:
    logits, targets = torch.tensor([[3.0, -3.0], [0.1, -0.1]]), torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    plain = losses(logits, targets, TrialConfig(), multi_label=multi_label)
    focal = losses(logits, targets, TrialConfig(loss="focal", focal_gamma=2.0), multi_label=multi_label)
    p = probabilities(logits, multi_label=multi_label)[:, 0].float()
    # Both classes are equally right here, so the factor of both terms is the same.
    torch.testing.assert_close(focal, plain * (1 - p) ** 2)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 3.0])
def test_the_focal_loss_has_finite_gradients_where_nothing_is_wrong(gamma: float) -> None:
    logits = torch.tensor([[60.0, -60.0]], requires_grad=True)
    config = TrialConfig(loss="focal", focal_gamma=gamma)
    losses(logits, torch.tensor([[1.0, 0.0]]), config, multi_label=False).sum().backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_logit_adjustment_adds_the_log_of_the_frequencies() -> None:
    config = TrialConfig(logit_adjustment=0.5)
    prior = log_prior(labelled([0, 0, 0, 1]), config)
    torch.testing.assert_close(prior, 0.5 * torch.log(torch.tensor([0.75, 0.25])))
    assert not log_prior(labelled([0, 1, 1]), TrialConfig()).any()
    several_prior = log_prior(several([[1, 0], [1, 0], [1, 1], [1, 0]]), config)
    assert float(several_prior[1]) == pytest.approx(0.5 * math.log(1 / 3))
    assert torch.isfinite(several_prior).all(), "a class that every image has"


def test_a_class_without_images_has_a_share_all_the_same() -> None:
    of = Labelled(("a", "b"), torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.ones(2))
    assert class_shares(of).tolist() == [1.0, 0.25]
    assert torch.isfinite(sample_weights(of, TrialConfig(class_weighting="balanced"))).all()


def test_probabilities_of_one_label_sum_to_one_and_those_of_several_need_not() -> None:
    logits = torch.tensor([[2.0, 2.0]])
    assert probabilities(logits, multi_label=False).tolist() == [[0.5, 0.5]]
    assert float(probabilities(logits, multi_label=True)[0, 0]) == pytest.approx(1 / (1 + math.exp(-2)))
