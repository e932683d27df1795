"""The training loop."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
import timm
import torch

from autovision.model.network import Suffix
from autovision.model.stages import StagedBackbone, channels_of, stages_of
from autovision.space.config import TrialConfig
from autovision.trial.data import Features
from autovision.trial.train import NotFinite, Problem, rung_epochs, train

FOREVER = time.time() + 1e6


class Twelve(StagedBackbone):
    """A backbone whose pooled taps are twelve wide, and that is never run."""

    def __init__(self) -> None:
        super().__init__([("stem", torch.nn.Identity())], "map")


def head_of(config: TrialConfig) -> Suffix:
    torch.manual_seed(0)
    return Suffix(Twelve(), config, [12], 2)


@pytest.mark.parametrize("head", ["linear", "mlp", "cosine"])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_every_head_learns_what_can_be_learnt(head: str, optimizer: str, problem: Problem) -> None:
    config = TrialConfig(head=head, optimizer=optimizer, lr=0.02, epochs=18, batch_size=32, mixup=0.2)
    reports = list(train(head_of(config), problem, config, seed=0, deadline=FOREVER))
    assert [report.epoch for report in reports] == [2, 6, 18]
    assert [report.last for report in reports] == [False, False, True]
    assert reports[-1].metrics["accuracy"] > 0.85
    assert reports[-1].train_loss < reports[0].train_loss


def test_the_same_seed_trains_the_same_head(problem: Problem) -> None:
    config = TrialConfig(epochs=5, mixup=0.4, dropout=0.3)

    def weights(seed: int) -> torch.Tensor:
        suffix = head_of(config)
        list(train(suffix, problem, config, seed=seed, deadline=FOREVER))
        return suffix.head.out.weight.detach().clone()

    torch.testing.assert_close(weights(1), weights(1), rtol=0, atol=0)
    assert not torch.equal(weights(1), weights(2))


def test_a_loss_that_is_not_finite_says_so_and_names_the_rate(problem: Problem) -> None:
    broken = replace(problem.train_features, pooled=problem.train_features.pooled.clone())
    broken.pooled[1, 3, 0] = float("nan")
    config = TrialConfig(lr=0.5, epochs=9)
    with pytest.raises(NotFinite, match=r"lr=0\.5; lower the learning rate"):
        list(
            train(head_of(config), replace(problem, train_features=broken), config, seed=0, deadline=FOREVER)
        )


def test_the_deadline_ends_training_with_one_more_report(problem: Problem) -> None:
    config = TrialConfig(epochs=1000)
    reports = list(train(head_of(config), problem, config, seed=0, deadline=time.time() + 0.3))
    assert reports[-1].last
    assert reports[-1].epoch < 1000


@pytest.mark.parametrize(("epochs", "rungs"), [(1, [1]), (2, [1, 2]), (9, [1, 3, 9]), (40, [5, 14, 40])])
def test_rungs_lie_a_ninth_and_a_third_into_the_training(epochs: int, rungs: list[int]) -> None:
    assert rung_epochs(epochs) == rungs


def unfrozen(problem: Problem, config: TrialConfig) -> tuple[Suffix, Problem]:
    """A small ResNet from its last cut, over random activations that carry the label."""
    torch.manual_seed(0)
    staged = stages_of(timm.create_model("test_resnet"))
    channels = channels_of(staged, 64, 64)
    suffix = Suffix(staged, config, channels, 2)

    def features(labels: torch.Tensor, views: int) -> Features:
        generator = torch.Generator().manual_seed(1)
        shape = (views, len(labels), channels[suffix.cut - 1], 8, 8)
        activation = torch.rand(shape, generator=generator) + labels.float()[None, :, None, None, None]
        with torch.no_grad():
            pooled = torch.stack([suffix.features(view, None) for view in activation])
        return Features(pooled, None, activation.half())

    return suffix, replace(
        problem,
        train_features=features(problem.train.labels, 2),
        validation_features=features(problem.validation.labels, 1),
    )


def test_fine_tuning_starts_from_the_probe_and_trains_the_unfrozen_stages_only(problem: Problem) -> None:
    config = TrialConfig(
        backbone="test_resnet", unfreeze=1, epochs=3, lr=1e-2, cutmix=1.0, mixup=0.2, batch_size=32
    )
    suffix, data = unfrozen(problem, config)
    before = {name: tensor.clone() for name, tensor in suffix.state_dict().items()}
    reports = list(train(suffix, data, config, seed=0, deadline=FOREVER))
    # After one epoch of fine-tuning the head is that good only because the probe came first.
    assert reports[0].metrics["accuracy"] > 0.9
    changed = {name for name, tensor in suffix.state_dict().items() if not torch.equal(tensor, before[name])}
    assert any(name.startswith("upper.") for name in changed)
    assert not any("running_" in name for name in changed), "BatchNorm statistics moved"


def test_a_given_head_is_where_training_starts(problem: Problem) -> None:
    config = TrialConfig(epochs=9, lr=0.02)
    first = head_of(config)
    list(train(first, problem, config, seed=0, deadline=FOREVER))
    second = head_of(config)
    known = {name: tensor.clone() for name, tensor in first.head.state_dict().items()}
    gentle = config.with_(lr=1e-7)
    reports = list(train(second, problem, gentle, seed=0, deadline=FOREVER, initial=known))
    torch.testing.assert_close(second.head.out.weight, known["out.weight"], atol=1e-4, rtol=0)
    assert reports[0].metrics["accuracy"] > 0.85
