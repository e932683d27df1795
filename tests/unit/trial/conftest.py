"""Small problems with features that are made without any backbone, and one with the stages of a small ResNet.

Also a trial of real images as it is assigned to a worker.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pytest
import timm
import torch

from autovision.model.heads import pool
from autovision.model.network import Suffix, taps_below
from autovision.model.stages import StagedBackbone, channels_of, stages_of
from autovision.space.config import TrialConfig
from autovision.trial.assignment import Assignment
from autovision.trial.data import Inputs, Labelled
from autovision.trial.state import Problem
from autovision.trial.workbench import Workbench

if TYPE_CHECKING:
    from tests.unit.conftest import History


@dataclass
class ArrayPrefix:
    """Features in memory: `activation` (V, N, *shape) and `pooled` (V, N, D), or one of the two."""

    activation: np.ndarray | None
    pooled: np.ndarray | None

    def __post_init__(self) -> None:
        one = self.pooled if self.activation is None else self.activation
        assert one is not None
        self.views: int | None = one.shape[0]
        self.images = one.shape[1]
        self.activation_shape = None if self.activation is None else self.activation.shape[2:]
        self.width = 0 if self.pooled is None else self.pooled.shape[2]

    def take(self, views: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray | None, np.ndarray | None]:
        return (
            None if self.activation is None else self.activation[views, rows],
            None if self.pooled is None else self.pooled[views, rows],
        )


def labelled(labels: torch.Tensor, classes: int, name: str, *, multi_label: bool = False) -> Labelled:
    targets = labels.float() if multi_label else torch.nn.functional.one_hot(labels, classes).float()
    images = tuple(f"{name}{i}" for i in range(len(labels)))
    # To a champion a third of them are new, and of the others it is not quite sure.
    new = torch.arange(len(labels)) % 3 == 0
    taught = torch.where(new[:, None], targets, 0.7 * targets + 0.3 / classes)
    return Labelled(images, targets, torch.ones(len(labels)), multi_label, new=new, taught=taught)


@pytest.fixture
def problem() -> Problem:
    """Two classes that a linear head tells apart in 12 pooled features, with 3 views."""
    generator = torch.Generator().manual_seed(0)

    def split(n: int, views: int, name: str) -> Inputs:
        labels = torch.arange(n) % 2
        centre = (labels.float() * 2 - 1)[None, :, None] * torch.linspace(0, 1, 12)
        pooled = centre + 0.8 * torch.randn(views, n, 12, generator=generator)
        prefix = ArrayPrefix(None, pooled.numpy())
        return Inputs(labelled(labels, 2, name), prefix, prefix)

    return Problem(split(120, 3, "t"), split(60, 1, "v"), positive=0)


@pytest.fixture
def several_labels() -> Problem:
    """Three labels of which an image may have any number, each told by some of 12 pooled features."""
    generator = torch.Generator().manual_seed(0)

    def split(n: int, views: int, name: str) -> Inputs:
        labels = torch.rand(n, 3, generator=generator) < torch.tensor([0.5, 0.3, 0.15])
        directions = torch.eye(3).repeat_interleave(4, 1)
        pooled = 2 * labels.float() @ directions + 0.6 * torch.randn(views, n, 12, generator=generator)
        prefix = ArrayPrefix(None, pooled.numpy())
        return Inputs(labelled(labels, 3, name, multi_label=True), prefix, prefix)

    return Problem(split(160, 2, "t"), split(80, 1, "v"), positive=None)


@pytest.fixture
def bench(tiny: History) -> Workbench:
    """Of a copy of `tiny`, which the test may write to."""
    return Workbench(tiny.copy(), 1)


@pytest.fixture
def task(bench: Workbench) -> Assignment:
    """One trial of a head on the small images of `tiny`, whose features are there, without a deadline."""
    return Assignment(
        store=bench.store.uri,
        search="s",
        trial="t",
        number=0,
        dataset="colours@1",
        config=TrialConfig(backbone="test_resnet", weights="random", resolution=64, epochs=9, batch_size=16),
        metric="accuracy",
        seed=0,
        deadline=math.inf,
        must_report=True,
        search_started=time.time(),
        initial_model=None,
        threads=1,
    )


class Twelve(StagedBackbone):
    """A backbone whose pooled taps are twelve wide, and that is never run."""

    def __init__(self) -> None:
        super().__init__([("stem", torch.nn.Identity())], "map")


@pytest.fixture
def head_of() -> Callable[..., Suffix]:
    """The suffix of a configuration that trains a head alone."""

    def make(config: TrialConfig, classes: int = 2) -> Suffix:
        torch.manual_seed(0)
        return Suffix(Twelve(), config, [12], classes)

    return make


@pytest.fixture
def on_maps() -> Callable[..., tuple[Suffix, Problem]]:
    """A small ResNet above the cut of a configuration, and random activations that carry the label."""

    def make(config: TrialConfig, *, images: int = 96, views: int = 2) -> tuple[Suffix, Problem]:
        torch.manual_seed(0)
        staged = stages_of(timm.create_model("test_resnet"))
        channels = channels_of(staged, 64, 64)
        suffix = Suffix(staged, config, channels, 2)
        generator = torch.Generator().manual_seed(1)
        size = channels[suffix.cut - 1] if suffix.cut else 3

        def split(n: int, v: int, name: str) -> Inputs:
            labels = torch.arange(n) % 2
            activation = torch.rand((v, n, size, 8, 8), generator=generator)
            activation += 0.5 * labels.float()[None, :, None, None, None]
            activation = activation.half()
            # A tap below the cut can only be the one at it: nothing else is known here.
            taps = taps_below(config, len(staged))
            below = (
                torch.stack([pool(view.float().flatten(2), config.pooling) for view in activation])
                if taps
                else None
            )
            with torch.no_grad():
                pooled = torch.stack(
                    [
                        suffix.eval().features(activation[i].float(), None if below is None else below[i])
                        for i in range(v)
                    ]
                )
            probe = None if config.head == "attention" else ArrayPrefix(None, pooled.numpy())
            prefix = ArrayPrefix(activation.numpy(), None if below is None else below.numpy())
            return Inputs(labelled(labels, 2, name), prefix, probe)

        return suffix, Problem(split(images, views, "t"), split(40, 1, "v"), positive=0)

    return make
