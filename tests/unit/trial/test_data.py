"""What a trial trains on."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from autovision.errors import InvalidInput
from autovision.features.compute import FeatureSource, OutOfTime
from autovision.space.config import TrialConfig
from autovision.trial.data import Labelled, load_features
from autovision.trial.trial import Workbench

if TYPE_CHECKING:
    from tests.unit.conftest import History


def config(**changes: object) -> TrialConfig:
    return TrialConfig.model_validate(
        {"backbone": "test_resnet", "weights": "random", "resolution": 64, **changes}
    )


@pytest.fixture(scope="module")
def bench(tiny: History) -> Workbench:
    return Workbench(tiny.copy(), threads=2)


@pytest.fixture(scope="module")
def split(bench: Workbench) -> Labelled:
    train = bench.splits("colours@1").train
    return Labelled(train.images[:10], train.labels[:10], train.confidence[:10])


def parts(bench: Workbench, split: Labelled, wanted: TrialConfig, *, training: bool = True) -> tuple:
    source, channels = bench.source(wanted), bench.channels(wanted)
    found = load_features(source, split, wanted, channels, training=training, deadline=math.inf)
    return found, channels


def test_a_head_alone_needs_the_pooled_taps_alone(bench: Workbench, split: Labelled) -> None:
    found, channels = parts(bench, split, config(taps=2))
    assert found.pooled.shape == (1, 10, channels[-1] + channels[-2])
    assert found.pooled.dtype == torch.float32
    assert (found.below, found.activation) == (None, None)


def test_training_has_every_view_and_validation_the_image_itself(bench: Workbench, split: Labelled) -> None:
    wanted = config(augmentation="flip", unfreeze=1)
    training, _ = parts(bench, split, wanted)
    validation, _ = parts(bench, split, wanted, training=False)
    assert (training.views, validation.views) == (2, 1)
    assert training.activation is not None
    assert validation.activation is not None
    assert training.activation.dtype == torch.float16
    torch.testing.assert_close(training.activation[:1], validation.activation)
    torch.testing.assert_close(training.pooled[:1], validation.pooled)
    assert not torch.equal(training.pooled[0], training.pooled[1])


@pytest.mark.parametrize(
    ("unfreeze", "taps", "drop_stages", "below"),
    [(1, 1, 0, []), (1, 3, 0, [2, 3]), (2, 3, 0, [2]), (2, 2, 0, []), (1, 3, 2, [0, 1]), (3, 8, 1, [0])],
)
def test_below_are_the_taps_under_the_cut(
    bench: Workbench, split: Labelled, unfreeze: int, taps: int, drop_stages: int, below: list[int]
) -> None:
    wanted = config(unfreeze=unfreeze, taps=taps, drop_stages=drop_stages, pooling="avgmax")
    found, channels = parts(bench, split, wanted)
    width = 2 * sum(channels[stage] for stage in below)
    if not below:
        assert found.below is None
    else:
        assert found.below is not None
        assert found.below.shape[-1] == width
        torch.testing.assert_close(found.below, found.pooled[:, :, :width])
    assert found.activation is not None
    assert found.activation.shape[2] == channels[len(channels) - drop_stages - unfreeze - 1]


def test_rows_are_those_of_the_labels(bench: Workbench, split: Labelled) -> None:
    backwards = Labelled(split.images[::-1], split.labels.flip(0), split.confidence.flip(0))
    assert len(backwards) == 10
    forward, _ = parts(bench, split, config())
    reverse, _ = parts(bench, backwards, config())
    torch.testing.assert_close(reverse.pooled, forward.pooled.flip(1))


def test_the_deadline_is_kept(tiny: History, split: Labelled, tmp_path: Path) -> None:
    bench = Workbench(tiny.copy(), threads=1)
    source, wanted = bench.source(config(augmentation="dihedral")), config(augmentation="dihedral")
    assert isinstance(source, FeatureSource)
    with pytest.raises(OutOfTime):
        load_features(source, split, wanted, bench.channels(wanted), training=True, deadline=0.0)
    # Validation has its rows since the searches, so it needs no time.
    kept = load_features(source, split, wanted, bench.channels(wanted), training=False, deadline=0.0)
    assert np.isfinite(kept.pooled.numpy()).all()


def test_more_unfrozen_than_there_is(bench: Workbench, split: Labelled) -> None:
    with pytest.raises(InvalidInput, match="unfreeze=3 is more than the 2 stages that are kept"):
        parts(bench, split, config(unfreeze=3, drop_stages=3))
