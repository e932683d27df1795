"""Which rows under which views, mixed how, in which step."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from autovision.space.config import TrialConfig
from autovision.trial.data import Labelled
from autovision.trial.mixing import Mix, blend, map_size, paste
from autovision.trial.schedule import Step, epoch_steps, steps_per_epoch


def split(labels: list[int]) -> Labelled:
    targets = torch.nn.functional.one_hot(torch.tensor(labels)).float()
    return Labelled(tuple(map(str, range(len(labels)))), targets, torch.ones(len(labels)))


def steps(
    config: TrialConfig, *, views: int | None = 4, epoch: int = 0, seed: int = 0, maps: bool = True
) -> list[Step]:
    of = split([0] * 90 + [1] * 10)
    return list(epoch_steps(config, of, views, maps=maps, seed=seed, epoch=epoch))


def test_an_epoch_sees_every_image_once() -> None:
    config = TrialConfig(batch_size=32)
    drawn = steps(config)
    assert len(drawn) == steps_per_epoch(config, 100) == 4
    assert sorted(np.concatenate([step.rows for step in drawn])) == list(range(100))
    assert set(np.concatenate([step.views for step in drawn])) == {0, 1, 2, 3}


def test_an_epoch_is_a_function_of_seed_and_number() -> None:
    config = TrialConfig(mixup=0.2, cutmix=1.0)
    first, again = steps(config, epoch=3), steps(config, epoch=3)
    for one, other in zip(first, again, strict=True):
        assert np.array_equal(one.rows, other.rows)
        assert np.array_equal(one.views, other.views)
        assert one.noise_seed == other.noise_seed
        assert one.mix is not None and other.mix is not None
        assert (one.mix.share, one.mix.corner) == (other.mix.share, other.mix.corner)
    for changed in (steps(config, epoch=4), steps(config, epoch=3, seed=1)):
        assert not np.array_equal(changed[0].rows, first[0].rows)


def test_what_is_not_drawn_does_not_move_what_is() -> None:
    plain, mixed = steps(TrialConfig()), steps(TrialConfig(mixup=0.3))
    assert all(np.array_equal(a.rows, b.rows) for a, b in zip(plain, mixed, strict=True))
    assert [a.noise_seed for a in plain] == [b.noise_seed for b in mixed]


def test_views_without_limit_are_hardly_ever_the_same() -> None:
    views = np.concatenate([step.views for step in steps(TrialConfig(), views=None)])
    assert len(set(views)) > 95


def test_balanced_sampling_draws_every_class_alike() -> None:
    counts = Counter(
        int(row >= 90)
        for epoch in range(20)
        for step in steps(TrialConfig(sampling="balanced"), epoch=epoch)
        for row in step.rows
    )
    assert 0.45 < counts[1] / counts.total() < 0.55


def test_mixing_is_one_of_both_a_batch_and_cutmix_needs_maps() -> None:
    both = TrialConfig(mixup=0.2, cutmix=1.0, batch_size=4)
    found = [step.mix.corner is None for step in steps(both) if step.mix]
    assert 5 < sum(found) < 20
    only = [step.mix for step in steps(both, maps=False)]
    assert all(mix is not None and mix.corner is None for mix in only)
    assert all(step.mix is None for step in steps(TrialConfig()))


@pytest.mark.parametrize("layout", ["map", "map_channels_last"])
def test_a_box_of_the_partner_is_pasted_and_the_share_is_what_is_left(layout: str) -> None:
    mix = Mix(np.array([1, 0]), 0.6, (0.5, 0.25))
    maps, other = torch.zeros(2, 3, 10, 14), torch.ones(2, 3, 10, 14)
    if layout == "map_channels_last":
        maps, other = maps.permute(0, 2, 3, 1), other.permute(0, 2, 3, 1)
    result = paste(maps, other, mix, layout)  # type: ignore[arg-type]
    assert float(1 - result.mean()) == pytest.approx(mix.left((10, 14)))
    assert mix.left((10, 14)) == pytest.approx(0.6, abs=0.08)
    assert map_size(maps.shape[1:], layout) == (10, 14)  # type: ignore[arg-type]
    columns = result.mean((0, 1, 2) if layout == "map" else (0, 1, 3))
    pasted = columns.nonzero().flatten()
    assert int(pasted[0]) == round((14 - len(pasted)) * 0.25)


def test_mixup_is_a_weighted_mean() -> None:
    mix = Mix(np.array([1, 0]), 0.3, None)
    assert mix.left((7, 7)) == 0.3
    torch.testing.assert_close(blend(torch.ones(2), torch.zeros(2), 0.3), torch.full((2,), 0.3))


def test_tokens_are_no_map() -> None:
    assert map_size((197, 192), "tokens") is None
