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
from autovision.features.prefix import Prefix
from autovision.space.config import TrialConfig
from autovision.trial.data import Inputs, Labelled, load_inputs, pooled_statistics, tensors
from autovision.trial.workbench import Workbench

if TYPE_CHECKING:
    from tests.unit.conftest import History


def config(**changes: object) -> TrialConfig:
    return TrialConfig.model_validate(
        {"backbone": "test_resnet", "weights": "random", "resolution": 64, **changes}
    )


@pytest.fixture(scope="module")
def bench(tiny: History) -> Workbench:
    return Workbench(tiny.copy(), threads=2)


def part(split: Labelled, rows: slice) -> Labelled:
    return Labelled(split.images[rows], split.targets[rows], split.confidence[rows])


@pytest.fixture(scope="module")
def split(bench: Workbench) -> Labelled:
    return part(bench.splits("colours@1").train, slice(10))


def inputs(
    bench: Workbench, split: Labelled, wanted: TrialConfig, *, training: bool = True
) -> tuple[Inputs, list[int]]:
    source, channels = bench.source(wanted), bench.channels(wanted)
    found = load_inputs(source, split, wanted, channels, training=training, deadline=math.inf)
    return found, channels


def rows(prefix: Prefix, view: int = 0) -> tuple[np.ndarray | None, np.ndarray | None]:
    of = np.arange(prefix.images)
    return prefix.take(np.full_like(of, view), of)


def test_a_head_alone_needs_the_pooled_taps_alone(bench: Workbench, split: Labelled) -> None:
    found, channels = inputs(bench, split, config(taps=2))
    assert found.prefix is found.pooled
    assert found.prefix.activation_shape is None
    activation, below = rows(found.prefix)
    assert activation is None
    assert below is not None
    assert below.shape == (10, channels[-1] + channels[-2])


def test_training_has_every_view_and_validation_the_image_itself(bench: Workbench, split: Labelled) -> None:
    wanted = config(augmentation="flip", unfreeze=1)
    training, validation = (inputs(bench, split, wanted, training=t)[0] for t in (True, False))
    assert (training.prefix.views, validation.prefix.views) == (2, 1)
    activation, flipped = rows(training.prefix)[0], rows(training.prefix, 1)[0]
    assert activation is not None
    assert flipped is not None
    np.testing.assert_allclose(activation, rows(validation.prefix)[0])
    assert not np.array_equal(activation, flipped)


@pytest.mark.parametrize(
    ("changes", "below", "cut"),
    [
        ({"unfreeze": 1}, [], 4),
        ({"unfreeze": 1, "taps": 3}, [2, 3], 4),
        ({"unfreeze": 2, "taps": 3}, [2], 3),
        ({"unfreeze": 2, "taps": 2}, [], 3),
        ({"unfreeze": 1, "taps": 3, "drop_stages": 2}, [0, 1], 2),
        ({"unfreeze": 3, "taps": 8, "drop_stages": 1}, [0], 1),
        # What an adapter changes cannot be read from what was computed before it.
        ({"unfreeze": 1, "taps": 3, "adapters": 1}, [2], 4),
        ({"unfreeze": 0, "taps": 3, "adapters": 2}, [2], 4),
        ({"unfreeze": 0, "taps": 2, "pooling": "attention"}, [], 4),
        ({"unfreeze": 1, "taps": 3, "head": "attention"}, [], 3),
    ],
)
def test_below_are_the_taps_under_the_cut(
    bench: Workbench, split: Labelled, changes: dict[str, object], below: list[int], cut: int
) -> None:
    wanted = config(**{"pooling": "avgmax", **changes})
    found, channels = inputs(bench, split, wanted)
    assert found.prefix.width == 2 * sum(channels[stage] for stage in below)
    assert found.prefix.activation_shape is not None
    assert found.prefix.activation_shape[0] == channels[cut - 1]
    if wanted.head == "attention":
        assert found.pooled is None
    elif below:
        assert found.pooled is not None
        pooled, seen = rows(found.pooled)[1], rows(found.prefix)[1]
        assert pooled is not None
        np.testing.assert_array_equal(pooled[:, : found.prefix.width], seen)


def test_rows_are_those_of_the_labels(bench: Workbench, split: Labelled) -> None:
    backwards = Labelled(split.images[::-1], split.targets.flip(0), split.confidence.flip(0))
    assert len(backwards) == 10
    forward, reverse = (inputs(bench, of, config())[0] for of in (split, backwards))
    pooled = rows(forward.prefix)[1]
    assert pooled is not None
    np.testing.assert_array_equal(rows(reverse.prefix)[1], pooled[::-1])


def test_statistics_are_those_of_the_images_as_they_are(bench: Workbench, split: Labelled) -> None:
    prefix = inputs(bench, split, config(augmentation="flip", taps=3))[0].prefix
    mean, std = pooled_statistics(prefix)
    pooled = rows(prefix)[1]
    assert pooled is not None
    np.testing.assert_allclose(mean, pooled.astype(np.float64).mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(std, pooled.astype(np.float64).std(0, ddof=1), rtol=1e-3, atol=1e-5)


def test_a_batch_comes_as_the_suffix_takes_it(bench: Workbench, split: Labelled) -> None:
    prefix = inputs(bench, split, config(unfreeze=1, taps=2))[0].prefix
    activation, below = tensors(prefix, np.zeros(3, np.int64), np.array([4, 1, 1]), torch.device("cpu"))
    assert activation is not None
    assert below is not None
    assert activation.dtype == below.dtype == torch.float32
    assert activation.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(activation[1], activation[2])


def test_the_deadline_is_kept(tiny: History, split: Labelled, tmp_path: Path) -> None:
    bench = Workbench(tiny.copy(), threads=1)
    source, wanted = bench.source(config(augmentation="dihedral")), config(augmentation="dihedral")
    assert isinstance(source, FeatureSource)
    with pytest.raises(OutOfTime):
        load_inputs(source, split, wanted, bench.channels(wanted), training=True, deadline=0.0)
    # Validation has its rows since the searches, so it needs no time.
    kept = load_inputs(source, split, wanted, bench.channels(wanted), training=False, deadline=0.0)
    pooled = rows(kept.prefix)[1]
    assert pooled is not None
    assert np.isfinite(pooled).all()


def test_more_unfrozen_than_there_is(bench: Workbench, split: Labelled) -> None:
    with pytest.raises(InvalidInput, match="unfreeze=3 is more than the 2 stages that are kept"):
        inputs(bench, split, config(unfreeze=3, drop_stages=3))
