"""A small problem with frozen features, made without any backbone."""

from __future__ import annotations

import pytest
import torch

from autovision.trial.data import Features, Labelled
from autovision.trial.train import Problem


@pytest.fixture
def problem() -> Problem:
    """Two classes that a linear head tells apart in 12 pooled features, with 3 views."""
    generator = torch.Generator().manual_seed(0)

    def split(n: int, views: int, name: str) -> tuple[Labelled, Features]:
        labels = torch.arange(n) % 2
        centre = (labels.float() * 2 - 1)[None, :, None] * torch.linspace(0, 1, 12)
        pooled = centre + 0.8 * torch.randn(views, n, 12, generator=generator)
        images = tuple(f"{name}{i}" for i in range(n))
        return Labelled(images, labels, torch.ones(n)), Features(pooled, None, None)

    train, train_features = split(120, 3, "t")
    validation, validation_features = split(60, 1, "v")
    return Problem(train, validation, train_features, validation_features, classes=2, positive=0)
