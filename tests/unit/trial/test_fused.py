"""Heads that are trained together, against each of them trained alone."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pytest
import torch

from autovision.errors import InvalidInput
from autovision.features.compute import FeatureSource
from autovision.features.views import Views
from autovision.model.network import Suffix
from autovision.model.stages import StagedBackbone
from autovision.space.config import TrialConfig
from autovision.trial import fused
from autovision.trial.data import Labelled, load_inputs
from autovision.trial.fused import FittedHead, HeadProblem, fit_heads
from autovision.trial.pooled import load_pooled
from autovision.trial.state import Problem, Training
from autovision.trial.step import NotFinite
from autovision.trial.train import RungReport, begin, fit, judged_state
from tests.unit.trial.conftest import ArrayPrefix

FOREVER = math.inf
CHANNELS = [5, 4, 4]
SEED = 3


class Untouched(StagedBackbone):
    """A backbone of three stages, which no head on pooled features ever runs."""

    def __init__(self) -> None:
        super().__init__([(f"stage{i}", torch.nn.Identity()) for i in range(len(CHANNELS))], "map")


@dataclass
class ArraySource:
    """Pooled rows (V, N, 3·ΣC) in memory, of training and of validation images."""

    rows: dict[tuple[str, ...], np.ndarray]

    def prefix(
        self, images: Sequence[str], views: Views, *, cut: None, columns: np.ndarray, deadline: float
    ) -> ArrayPrefix:
        assert views.number is not None
        return ArrayPrefix(None, self.rows[tuple(images)][: views.number, :, columns])


@dataclass
class Data:
    source: FeatureSource
    train: Labelled
    validation: Labelled

    def problem(self, configs: Sequence[TrialConfig]) -> HeadProblem:
        train, validation = (
            load_pooled(self.source, split, configs, CHANNELS, training=training, deadline=FOREVER)
            for split, training in ((self.train, True), (self.validation, False))
        )
        return HeadProblem(train, validation, CHANNELS, None if self.train.multi_label else 1)

    def fused(self, configs: Sequence[TrialConfig], deadline: float = FOREVER) -> list[FittedHead]:
        return fit_heads(configs, self.problem(configs), SEED, deadline, torch.device("cpu"))

    def alone(self, config: TrialConfig) -> tuple[list[RungReport], dict[str, torch.Tensor]]:
        train, validation = (
            load_inputs(self.source, split, config, CHANNELS, training=training, deadline=FOREVER)
            for split, training in ((self.train, True), (self.validation, False))
        )
        problem = Problem(train, validation, None if self.train.multi_label else 1)
        staged = Untouched()
        staged.truncate(len(CHANNELS) - config.drop_stages)
        torch.manual_seed(SEED)
        suffix = Suffix(staged, config, CHANNELS[: len(staged)], self.train.classes)
        begin(suffix, problem, config, SEED, FOREVER, None)
        run = Training(suffix, problem, config, SEED)
        return list(fit(run, FOREVER)), judged_state(run)


def data_of(*, multi_label: bool) -> Data:
    """Three classes, unequally frequent, that pooled features tell apart with errors; labels of unequal confidence."""
    generator = torch.Generator().manual_seed(0)
    width, classes = 3 * sum(CHANNELS), 3
    directions = torch.randn(classes, width, generator=generator)
    rows: dict[tuple[str, ...], np.ndarray] = {}

    def split(n: int, views: int, name: str) -> Labelled:
        frequent = torch.tensor([0.6, 0.3, 0.1])
        if multi_label:
            targets = (torch.rand(n, classes, generator=generator) < frequent).float()
        else:
            drawn = torch.multinomial(frequent, n, replacement=True, generator=generator)
            targets = torch.nn.functional.one_hot(drawn, classes).float()
        features = 0.5 * targets @ directions + torch.randn(views, n, width, generator=generator)
        images = tuple(f"{name}{i}" for i in range(n))
        rows[images] = features.numpy()
        confidence = torch.rand(n, generator=generator)
        new = torch.rand(n, generator=generator) < 0.3
        said = (3 * torch.randn(n, classes, generator=generator) + targets).softmax(-1)
        taught = torch.where(new[:, None], targets, said)
        return Labelled(images, targets, confidence, multi_label, new=new, times=2, taught=taught)

    train, validation = split(90, 8, "t"), split(50, 8, "v")
    return Data(cast(FeatureSource, ArraySource(rows)), train, validation)


@pytest.fixture(scope="module", params=[False, True], ids=["one label", "several labels"])
def data(request: pytest.FixtureRequest) -> Data:
    return data_of(multi_label=request.param)


def drawn(count: int, seed: int) -> list[TrialConfig]:
    """Configurations that differ in every field that a head on pooled features knows."""
    rng = np.random.default_rng(seed)

    def one_of(*values: Any) -> Any:
        return values[int(rng.integers(len(values)))]

    return [
        TrialConfig(
            head=one_of("linear", "mlp", "cosine"),
            head_width=one_of(8, 12),
            pooling=one_of("avg", "max", "avgmax", "gem"),
            taps=one_of(1, 2, 3),
            drop_stages=one_of(0, 0, 1),
            dropout=one_of(0.0, 0.2, float(rng.uniform(0, 0.6))),
            augmentation=one_of("none", "flip", "dihedral"),
            test_time_augmentation=one_of("none", "none", "flip", "dihedral"),
            mixup=one_of(0.0, 0.2, 1.0),
            class_weighting=one_of("none", "balanced"),
            sampling=one_of("shuffle", "balanced"),
            confidence_weighting=one_of(False, True),
            optimizer=one_of("adamw", "sgd"),
            lr=float(10 ** rng.uniform(-3, -1.5)),
            weight_decay=one_of(0.0, float(10 ** rng.uniform(-4, -1))),
            warmup=one_of(0.0, 0.2),
            clip_norm=one_of(0.0, 0.3, 5.0),
            ema=one_of(0.0, 0.9),
            loss=one_of("cross_entropy", "focal"),
            focal_gamma=one_of(0.5, 2.0),
            logit_adjustment=one_of(0.0, 1.0),
            label_smoothing=one_of(0.0, float(rng.uniform(0, 0.3))),
            epochs=one_of(2, 5, 9),
            batch_size=one_of(16, 32),
            patience=one_of(0, 0, 1, 3),
            new_weight=one_of(1.0, 3.0, float(rng.uniform(1, 16))),
            distill=one_of(0.0, 0.5, float(rng.uniform(0, 1))),
        )
        for _ in range(count)
    ]


def assert_equal(fitted: FittedHead, reports: list[RungReport], state: dict[str, torch.Tensor]) -> None:
    """Equal but for the order in which float32 numbers are summed.

    A sum of a hundred products is off by some 1e-6 of them, and each of up to 54 steps adds as much; AdamW divides
    by the root of small squares, which makes that ten times as much where a gradient is close to zero.
    """
    assert fitted.error is None
    assert fitted.tensors.keys() == state.keys()
    for name, tensor in state.items():
        torch.testing.assert_close(fitted.tensors[name], tensor, rtol=1e-4, atol=2e-5)
    assert [(r.rung, r.epoch, r.last) for r in fitted.reports] == [(r.rung, r.epoch, r.last) for r in reports]
    for mine, theirs in zip(fitted.reports, reports, strict=True):
        np.testing.assert_allclose(mine.logits, theirs.logits, rtol=1e-4, atol=1e-4)
        assert mine.train_loss == pytest.approx(theirs.train_loss, rel=1e-5)
        assert mine.metrics == pytest.approx(theirs.metrics, rel=1e-4)


def test_every_head_is_what_it_would_be_alone(data: Data) -> None:
    configs = drawn(40, seed=0)
    for config, fitted in zip(configs, data.fused(configs), strict=True):
        assert fitted.config == config
        assert_equal(fitted, *data.alone(config))


@pytest.fixture(scope="module")
def one_label() -> Data:
    return data_of(multi_label=False)


def test_many_heads_of_one_shape_with_a_dropout_of_their_own(one_label: Data) -> None:
    shares = np.random.default_rng(1).uniform(0, 0.9, 30).tolist()
    configs = [
        TrialConfig(epochs=3, batch_size=32, lr=0.01, taps=2, dropout=share)
        for share in [*shares, 0, 0.5, 0.5]
    ]
    together = one_label.fused(configs)
    for number in (0, 7, 21, 30, 31, 32):
        assert_equal(together[number], *one_label.alone(configs[number]))
    # Equal heads at different places of a batched product are equal to the last bit on some processors only.
    twins = [together[number].tensors["head.out.weight"] for number in (31, 32)]
    torch.testing.assert_close(*twins, rtol=1e-5, atol=1e-6)


def test_the_order_of_the_configurations_does_not_matter(one_label: Data) -> None:
    configs = drawn(16, seed=2)
    for one, other in zip(one_label.fused(configs), one_label.fused(configs[::-1])[::-1], strict=True):
        assert one.config == other.config
        assert_equal(one, list(other.reports), other.tensors)


@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_a_head_that_diverges_fails_alone(one_label: Data, head: str) -> None:
    steady = TrialConfig(
        head=head, optimizer="sgd", lr=0.01, clip_norm=0.0, epochs=30, batch_size=16, weight_decay=1.0
    )
    wild = steady.with_(lr=10.0, label_smoothing=0.1)
    with pytest.raises(NotFinite) as alone:
        one_label.alone(wild)
    first, failed, last = one_label.fused([steady, wild, steady.with_(dropout=0.2)])
    assert failed.error == str(alone.value)
    assert failed.tensors == {}
    assert not any(report.last for report in failed.reports)
    assert_equal(first, *one_label.alone(steady))
    assert_equal(last, *one_label.alone(last.config))


def test_heads_that_end_early_leave_the_others_as_they_were(one_label: Data) -> None:
    base = TrialConfig(lr=0.3, batch_size=32, ema=0.5, dropout=0.1)
    configs = [
        base.with_(epochs=epochs, patience=patience) for epochs in (1, 4, 12) for patience in (0, 1, 2)
    ]
    together = one_label.fused(configs)
    assert {fitted.reports[-1].epoch for fitted in together} > {1, 4, 12}, "none stopped for lack of progress"
    for config, fitted in zip(configs, together, strict=True):
        assert_equal(fitted, *one_label.alone(config))


def test_a_head_that_ends_sooner_is_what_it_was_then(one_label: Data) -> None:
    """Its learning rate falls as if it went on: it is no shorter schedule."""
    config = TrialConfig(lr=0.03, batch_size=32, epochs=12)
    (whole,) = one_label.fused([config])
    rung = whole.reports[-2]
    assert rung.epoch < 12
    problem = one_label.problem([config])
    ended, other, late = fit_heads(
        [config] * 3, problem, SEED, FOREVER, torch.device("cpu"), [rung.epoch, rung.epoch + 1, 99]
    )
    np.testing.assert_allclose(ended.reports[-1].logits, rung.logits, atol=1e-5)
    ends = [(f.reports[-1].epoch, f.reports[-1].last) for f in (ended, other, late)]
    assert ends == [(rung.epoch, True), (rung.epoch + 1, True), (12, True)]


def test_at_the_deadline_every_head_has_a_value(one_label: Data) -> None:
    configs = drawn(12, seed=4)
    for fitted in one_label.fused(configs, deadline=0.0):
        assert fitted.error is None
        (report,) = fitted.reports
        assert (report.epoch, report.last) == (1, True)
        assert report.logits.shape == (len(one_label.validation), 3)
        assert fitted.tensors.keys() >= {"head.mean", "head.std", "head.out.weight"}


def test_a_deadline_finds_all_cohorts_equally_far(one_label: Data) -> None:
    configs = [TrialConfig(epochs=1000, batch_size=size) for size in (16, 32, 64)]
    epochs = [f.reports[-1].epoch for f in one_label.fused(configs, deadline=time.time() + 0.5)]
    assert max(epochs) - min(epochs) <= 2
    assert max(epochs) < 1000


def test_what_does_not_fit_into_memory_is_trained_in_lots(
    one_label: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    configs = drawn(6, seed=5)
    at_once = one_label.fused(configs)
    monkeypatch.setattr(fused, "allowance", lambda device, threads: 3_000)
    lots = fused._lots(fused._members(configs, one_label.problem(configs), SEED), 3_000)
    assert len(lots) > 2
    assert [member.number for lot in lots for member in lot] == list(range(6))
    for one, other in zip(one_label.fused(configs), at_once, strict=True):
        assert_equal(one, list(other.reports), other.tensors)


def test_no_configurations_are_no_heads(one_label: Data) -> None:
    problem = one_label.problem([TrialConfig()])
    assert fit_heads([], problem, SEED, FOREVER, torch.device("cpu")) == []


def test_what_trains_on_maps_is_refused(one_label: Data) -> None:
    with pytest.raises(InvalidInput, match=r"unfreeze=2.*trains on maps; train it as a trial of its own"):
        one_label.problem([TrialConfig(), TrialConfig(unfreeze=2)])


def test_heads_of_two_backbones_are_refused(one_label: Data) -> None:
    configs = [TrialConfig(), TrialConfig(resolution=64)]
    with pytest.raises(InvalidInput, match="features of one backbone, and these are of 2"):
        one_label.fused(configs)
