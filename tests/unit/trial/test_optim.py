"""Learning rates."""

from __future__ import annotations

import timm
import torch

from autovision.model.network import Suffix
from autovision.model.stages import channels_of, stages_of
from autovision.space.config import TrialConfig
from autovision.trial.optim import make_optimizer, parameter_groups, set_rate


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


def test_norms_and_biases_are_not_decayed_and_every_parameter_is_in_one_group() -> None:
    config = TrialConfig(unfreeze=1, weight_decay=0.3)
    suffix = suffix_of(config)
    groups = parameter_groups(suffix, config)
    named = [id(p) for group in groups for p in group["params"]]
    assert sorted(named) == sorted(id(p) for p in suffix.parameters())
    for group in groups:
        assert group["weight_decay"] == (0.3 if all(p.dim() > 1 for p in group["params"]) else 0.0)


def test_the_rate_warms_up_and_decays_to_nothing() -> None:
    optimizer = make_optimizer(suffix_of(TrialConfig(lr=1.0)), TrialConfig(lr=1.0))
    rates = []
    for step in range(100):
        set_rate(optimizer, step, 100)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates[:5] == sorted(rates[:5])
    assert max(rates) == 1.0
    assert rates[5:] == sorted(rates[5:], reverse=True)
    assert rates[-1] < 0.01
    assert isinstance(make_optimizer(suffix_of(TrialConfig()), TrialConfig(optimizer="sgd")), torch.optim.SGD)
