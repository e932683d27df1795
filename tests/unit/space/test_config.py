"""A trial's configuration: what has no effect is not part of it."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from autovision.records.base import digest_of
from autovision.space.config import TrialConfig, check_value, field_names
from autovision.space.reference import parameter_table


@pytest.mark.parametrize(
    ("base", "name", "value", "matters"),
    [
        ({"head": "linear"}, "head_width", 64, False),
        ({"head": "mlp"}, "head_width", 64, True),
        ({"unfreeze": 0}, "layer_decay", 0.5, False),
        ({"unfreeze": 0}, "backbone_lr_ratio", 0.5, False),
        ({"unfreeze": 0}, "cutmix", 1.0, False),
        ({"unfreeze": 2}, "layer_decay", 0.5, True),
        ({"unfreeze": 1}, "backbone_lr_ratio", 0.5, True),
        ({"unfreeze": 1}, "cutmix", 1.0, True),
        ({"unfreeze": 0}, "mixup", 1.0, True),
        ({"unfreeze": 1}, "layer_decay", 0.5, False),
        ({"unfreeze": 1}, "unfreeze_schedule", "gradual", False),
        ({"unfreeze": 2}, "unfreeze_schedule", "gradual", True),
        ({"unfreeze": 0}, "drop_path", 0.2, False),
        ({"unfreeze": 1}, "drop_path", 0.2, True),
        ({"unfreeze": 0, "adapters": 1}, "l2_sp", 0.1, False),
        ({"unfreeze": 1}, "l2_sp", 0.1, True),
        ({"adapters": 0}, "adapter_width", 8, False),
        ({"adapters": 1}, "adapter_width", 8, True),
        ({"adapters": 1}, "cutmix", 1.0, True),
        ({"pooling": "attention"}, "cutmix", 1.0, True),
        ({"head": "attention"}, "head_width", 64, True),
        ({"head": "attention"}, "pooling", "max", False),
        ({"augmentation": "flip"}, "views", 8, False),
        ({"augmentation": "trivialaugment"}, "views", 8, True),
        ({"augmentation": "trivialaugment"}, "magnitude", 20, False),
        ({"augmentation": "randaugment"}, "magnitude", 20, True),
        ({"loss": "cross_entropy"}, "focal_gamma", 1.0, False),
        ({"loss": "focal"}, "focal_gamma", 1.0, True),
        ({}, "ema", 0.99, True),
        ({}, "test_time_augmentation", "flip", True),
        ({}, "patience", 3, True),
        ({}, "warmup", 0.2, True),
        ({}, "clip_norm", 0.0, True),
        ({}, "sampling", "balanced", True),
        ({}, "logit_adjustment", 1.0, True),
    ],
)
def test_the_digest_is_of_what_has_an_effect(
    base: dict[str, Any], name: str, value: Any, matters: bool
) -> None:
    one, other = TrialConfig(**base), TrialConfig(**base, **{name: value})
    assert (one.digest != other.digest) == matters
    assert (one.resolved() != other.resolved()) == matters


def test_resolving_twice_changes_nothing() -> None:
    config = TrialConfig(head="cosine", head_width=32, layer_decay=0.1).resolved()
    assert config.resolved() == config


def test_unknown_fields_and_values_are_refused() -> None:
    with pytest.raises(ValidationError, match="learning_rate"):
        TrialConfig.model_validate({"learning_rate": 0.1})
    with pytest.raises(ValidationError, match="greater than 0"):
        check_value("lr", 0)
    assert check_value("lr", 1) == 1.0


def test_every_field_says_what_it_means() -> None:
    for name in field_names():
        assert TrialConfig.model_fields[name].description, name


def test_the_table_tells_what_is_allowed() -> None:
    rows = dict(row.strip("| ").split(" | ", 1) for row in parameter_table().splitlines()[2:])
    assert list(rows) == [f"`{name}`" for name in field_names()]
    assert rows["`lr`"].startswith("number > 0 ≤ 10 | 0.001 | ")
    assert rows["`resolution`"].startswith("whole number ≥ 32 ≤ 1024 or None | None | ")
    assert rows["`pooling`"].startswith("`avg`, `max`, `avgmax`, `gem`, `attention` | `avg` | ")
    assert rows["`weights`"].startswith("`pretrained`, `random` or text like `store:NAME` | `pretrained` | ")
    assert rows["`confidence_weighting`"].startswith("True, False | False | ")


def test_what_came_later_leaves_digests_as_they_were_unless_it_says_something() -> None:
    config = TrialConfig(lr=0.02)
    body = config.resolved().model_dump(mode="json")
    assert config.digest == digest_of({n: v for n, v in body.items() if n not in ("new_weight", "distill")})
    assert len({config.digest, config.with_(distill=0.5).digest, config.with_(new_weight=2.0).digest}) == 3
