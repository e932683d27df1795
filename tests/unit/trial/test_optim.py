"""Learning rates."""

from __future__ import annotations

import pytest
import timm
import torch

from autovision.model.network import Suffix
from autovision.model.stages import channels_of, stages_of
from autovision.space.config import TrialConfig
from autovision.trial.optim import (
    Ema,
    make_optimizer,
    parameter_groups,
    rate_factor,
    set_rate,
    unlock,
    unlocked_stages,
)


def suffix_of(config: TrialConfig) -> Suffix:
    staged = stages_of(timm.create_model("test_resnet"))
    return Suffix(staged, config, channels_of(staged, 64, 64), 2)


def test_each_stage_learns_slower_than_the_one_above_it() -> None:
    config = TrialConfig(unfreeze=2, lr=0.1, backbone_lr_ratio=0.5, layer_decay=0.2)
    suffix = suffix_of(config)
    rate = {id(p): group["lr"] for group in parameter_groups(suffix, config) for p in group["params"]}
    rates = [
        {rate[id(p)] for p in module.parameters()} for module in (suffix.head, *reversed(suffix.upper.stages))
    ]
    assert [round(only, 6) for (only,) in rates] == [0.1, 0.05, 0.01]


def test_norms_and_biases_are_not_decayed_and_what_is_trained_is_in_one_group() -> None:
    config = TrialConfig(unfreeze=1, adapters=2, pooling="attention", weight_decay=0.3)
    suffix = suffix_of(config)
    groups = parameter_groups(suffix, config)
    named = [id(p) for group in groups for p in group["params"]]
    trained = suffix.trained_state()
    assert sorted(named) == sorted(id(p) for name, p in suffix.named_parameters() if name in trained)
    for group in groups:
        assert group["weight_decay"] == (0.3 if all(p.dim() > 1 for p in group["params"]) else 0.0)


@pytest.mark.parametrize("warmup", [0.0, 0.05, 0.3])
def test_the_rate_warms_up_and_decays_to_nothing(warmup: float) -> None:
    config = TrialConfig(lr=1.0, warmup=warmup)
    optimizer = make_optimizer(suffix_of(config), config)
    rates = []
    for step in range(100):
        set_rate(optimizer, rate_factor(config, step, 100))
        rates.append(optimizer.param_groups[0]["lr"])
    top = round(100 * warmup)
    assert rates[:top] == sorted(rates[:top])
    assert max(rates) == 1.0
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert rates[-1] < 0.01


def test_both_optimizers_are_pytorchs() -> None:
    assert isinstance(make_optimizer(suffix_of(TrialConfig()), TrialConfig(optimizer="sgd")), torch.optim.SGD)
    assert isinstance(make_optimizer(suffix_of(TrialConfig()), TrialConfig()), torch.optim.AdamW)


def test_stages_are_unlocked_one_by_one_over_the_first_half() -> None:
    config = TrialConfig(unfreeze=3, epochs=12, unfreeze_schedule="gradual")
    counts = [unlocked_stages(config, epoch) for epoch in range(12)]
    assert counts == [1, 1, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3]
    assert unlocked_stages(config.with_(unfreeze_schedule="at_once"), 0) == 3
    suffix = suffix_of(config)
    assert unlock(suffix, config, 0)
    trained = [all(p.requires_grad for p in stage.parameters()) for stage in suffix.trained_stages()]
    assert trained == [False, False, True]
    assert not unlock(suffix, config, 1)
    assert unlock(suffix, config, 4)
    assert all(p.requires_grad for stage in suffix.trained_stages() for p in stage.parameters())


def test_the_moving_average_forgets_the_start_and_can_be_put_in_place() -> None:
    weight = torch.nn.Parameter(torch.zeros(3))
    ema = Ema([weight], 0.9)
    with torch.no_grad():
        weight.fill_(1.0)
    for _ in range(200):
        ema.update()
    assert float(ema.average[0][0]) == pytest.approx(1.0, abs=1e-3)
    with torch.no_grad():
        weight.fill_(5.0)
    with ema.applied():
        assert float(weight[0].detach()) == pytest.approx(1.0, abs=1e-3)
    assert weight.tolist() == [5.0] * 3
