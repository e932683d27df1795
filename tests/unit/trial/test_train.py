"""The training loop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from autovision.model.network import Suffix
from autovision.space.config import TrialConfig
from autovision.trial.state import Problem, Training
from autovision.trial.step import NotFinite
from autovision.trial.train import RungReport, begin, fit, judged_state, rung_epochs

FOREVER = math.inf
MakeHead = Callable[..., Suffix]
MakeMaps = Callable[..., tuple[Suffix, Problem]]


def train(
    suffix: Suffix,
    problem: Problem,
    config: TrialConfig,
    *,
    seed: int = 0,
    deadline: float = FOREVER,
    accumulate: int = 1,
    initial: dict[str, torch.Tensor] | None = None,
) -> tuple[Training, list[RungReport]]:
    begin(suffix, problem, config, seed, deadline, initial)
    run = Training(suffix, problem, config, seed, accumulate=accumulate)
    return run, list(fit(run, deadline))


@pytest.mark.parametrize("head", ["linear", "mlp", "cosine"])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_every_head_learns_what_can_be_learnt(
    head: str, optimizer: str, problem: Problem, head_of: MakeHead
) -> None:
    config = TrialConfig(head=head, optimizer=optimizer, lr=0.02, epochs=18, batch_size=32, mixup=0.2)
    _, reports = train(head_of(config), problem, config)
    assert [report.epoch for report in reports] == [2, 6, 18]
    assert [report.rung for report in reports] == [0, 1, 2]
    assert [report.last for report in reports] == [False, False, True]
    assert reports[-1].metrics["accuracy"] > 0.85
    assert reports[-1].train_loss < reports[0].train_loss


def test_the_same_seed_trains_the_same_head(problem: Problem, head_of: MakeHead) -> None:
    config = TrialConfig(epochs=5, mixup=0.4, dropout=0.3)

    def weights(seed: int) -> torch.Tensor:
        suffix = head_of(config)
        train(suffix, problem, config, seed=seed)
        return suffix.head.out.weight.detach().clone()

    torch.testing.assert_close(weights(1), weights(1), rtol=0, atol=0)
    assert not torch.equal(weights(1), weights(2))


def test_a_loss_that_is_not_finite_says_so_and_names_the_rate(problem: Problem, head_of: MakeHead) -> None:
    pooled = problem.train.pooled.pooled.copy()  # type: ignore[union-attr]
    pooled[1, 3, 0] = float("nan")
    prefix = replace(problem.train.pooled, pooled=pooled)  # type: ignore[type-var]
    broken = replace(problem, train=replace(problem.train, prefix=prefix))
    config = TrialConfig(lr=0.5, epochs=9)
    with pytest.raises(NotFinite, match=r"lr=0\.5; lower the learning rate"):
        train(head_of(config), broken, config)


def test_the_deadline_ends_training_with_one_more_report(problem: Problem, head_of: MakeHead) -> None:
    config = TrialConfig(epochs=1000)
    _, reports = train(head_of(config), problem, config, deadline=time.time() + 0.3)
    assert reports[-1].last
    assert reports[-1].epoch < 1000


@pytest.mark.parametrize(("epochs", "rungs"), [(1, [1]), (2, [1, 2]), (9, [1, 3, 9]), (40, [5, 14, 40])])
def test_rungs_lie_a_ninth_and_a_third_into_the_training(epochs: int, rungs: list[int]) -> None:
    assert rung_epochs(epochs) == rungs


FINE = TrialConfig(backbone="test_resnet", unfreeze=1, epochs=3, lr=1e-2, batch_size=32)


def test_fine_tuning_starts_from_the_probe_and_trains_the_unfrozen_stages_only(on_maps: MakeMaps) -> None:
    config = FINE.with_(cutmix=1.0, mixup=0.2)
    suffix, problem = on_maps(config)
    before = {name: tensor.clone() for name, tensor in suffix.state_dict().items()}
    _, reports = train(suffix, problem, config)
    # After one epoch of fine-tuning the head is that good only because the probe came first.
    assert reports[0].metrics["accuracy"] > 0.9
    changed = {name for name, tensor in suffix.state_dict().items() if not torch.equal(tensor, before[name])}
    assert any(name.startswith("upper.") for name in changed)
    assert not any("running_" in name for name in changed), "BatchNorm statistics moved"


def test_a_given_head_is_where_training_starts(problem: Problem, head_of: MakeHead) -> None:
    config = TrialConfig(epochs=9, lr=0.02)
    first = head_of(config)
    train(first, problem, config)
    second = head_of(config)
    known = {name: tensor.clone() for name, tensor in first.head.state_dict().items()}
    _, reports = train(second, problem, config.with_(lr=1e-7), initial=known)
    torch.testing.assert_close(second.head.out.weight, known["out.weight"], atol=1e-4, rtol=0)
    assert reports[0].metrics["accuracy"] > 0.85


@pytest.mark.parametrize(
    "changes",
    [
        {"pooling": "attention", "unfreeze": 0},
        {"head": "attention", "head_width": 32, "unfreeze": 0, "lr": 3e-3, "epochs": 9},
        {"adapters": 2, "unfreeze": 0},
        {"adapters": 1, "unfreeze": 1},
        {"unfreeze": 2, "taps": 3, "pooling": "avgmax", "head": "mlp"},
    ],
)
def test_everything_that_needs_maps_learns_and_leaves_frozen_stages_alone(
    changes: dict[str, object], on_maps: MakeMaps
) -> None:
    # Smoothed, so that there is something left to learn after a probe that gets all images right.
    config = FINE.with_(label_smoothing=0.1, **changes)
    suffix, problem = on_maps(config)
    before = {name: tensor.clone() for name, tensor in suffix.state_dict().items()}
    _, reports = train(suffix, problem, config)
    assert reports[-1].metrics["accuracy"] > 0.9
    may_change = set(suffix.trained_state())
    changed = {name for name, tensor in suffix.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed <= may_change
    parameters = {name for name, p in suffix.named_parameters() if p.requires_grad}
    assert parameters <= changed, "a parameter is trained in name only"


def test_gradual_unfreezing_moves_the_lower_stage_later(on_maps: MakeMaps) -> None:
    config = FINE.with_(unfreeze=2, epochs=4, unfreeze_schedule="gradual")
    suffix, problem = on_maps(config)
    begin(suffix, problem, config, 0, FOREVER, None)
    run = Training(suffix, problem, config, 0)
    lower, upper = (next(stage.parameters()) for stage in suffix.trained_stages())
    moved: list[tuple[bool, bool]] = []
    seen = [lower.detach().clone(), upper.detach().clone()]

    def look(run: Training) -> None:
        moved.append((not torch.equal(lower, seen[0]), not torch.equal(upper, seen[1])))

    list(fit(run, FOREVER, look))
    assert moved[0] == (False, True)
    assert moved[-1] == (True, True)


def test_a_pull_towards_the_start_keeps_weights_near_it(on_maps: MakeMaps) -> None:
    def distance(l2_sp: float) -> float:
        config = FINE.with_(l2_sp=l2_sp, backbone_lr_ratio=1.0)
        suffix, problem = on_maps(config)
        start = [p.detach().clone() for p in suffix.trained_stages()[0].parameters()]
        train(suffix, problem, config)
        now = suffix.trained_stages()[0].parameters()
        return sum(float((a.detach() - b).square().sum()) for a, b in zip(now, start, strict=True))

    assert distance(10.0) < 0.5 * distance(0.0)


def test_stochastic_depth_leaves_branches_out_in_training_only(on_maps: MakeMaps) -> None:
    plain, deep = FINE, FINE.with_(drop_path=0.9)
    losses = {}
    for config in (plain, deep):
        suffix, problem = on_maps(config)
        _, reports = train(suffix, problem, config)
        again = list(fit(Training(suffix, problem, config.with_(lr=1e-9), 0), FOREVER))
        losses[config.drop_path] = reports[-1].train_loss
        np.testing.assert_allclose(again[-1].logits, reports[-1].logits, atol=1e-3)
    assert losses[0.9] != losses[0.0]


@pytest.mark.parametrize("changes", [{}, {"mixup": 0.4, "cutmix": 1.0}, {"drop_path": 0.3, "dropout": 0.3}])
def test_gradients_that_are_accumulated_give_what_the_whole_batch_gives(
    changes: dict[str, object], on_maps: MakeMaps
) -> None:
    config = FINE.with_(**changes, optimizer="sgd", l2_sp=0.1)

    def trained(parts: int) -> list[RungReport]:
        suffix, problem = on_maps(config)
        return train(suffix, problem, config, accumulate=parts)[1]

    for whole, parts in zip(trained(1), trained(3), strict=True):
        assert parts.train_loss == pytest.approx(whole.train_loss, rel=1e-4)
        np.testing.assert_allclose(parts.logits, whole.logits, atol=2e-3)


def test_the_moving_average_is_what_is_judged_and_kept(on_maps: MakeMaps) -> None:
    config = FINE.with_(ema=0.9, epochs=2)
    suffix, problem = on_maps(config)
    run, reports = train(suffix, problem, config)
    raw = {name: tensor.clone() for name, tensor in suffix.trained_state().items()}
    kept = judged_state(run)
    assert any(not torch.equal(raw[name], kept[name]) for name in raw)
    assert all(torch.equal(raw[name], tensor) for name, tensor in suffix.trained_state().items())
    suffix.load_trained(kept)
    ends = list(fit(Training(suffix, problem, config.with_(lr=1e-9, ema=0.0, epochs=1), 0), FOREVER))
    np.testing.assert_allclose(ends[-1].logits, reports[-1].logits, atol=1e-3)


def test_patience_ends_training_early_with_the_best_epoch(problem: Problem, head_of: MakeHead) -> None:
    config = TrialConfig(lr=0.5, epochs=200, patience=3, batch_size=16)
    suffix = head_of(config)
    run, reports = train(suffix, problem, config)
    assert reports[-1].last
    assert reports[-1].epoch < 200
    assert run.best is not None
    assert reports[-1].epoch == run.best.epoch + 3
    assert reports[-1].metrics["neg_log_loss"] == pytest.approx(run.best.value)
    assert all(torch.equal(tensor, judged_state(run)[name]) for name, tensor in run.best.tensors.items())


@pytest.mark.parametrize(
    "changes",
    [
        {"loss": "focal"},
        {"logit_adjustment": 1.0},
        {"sampling": "balanced"},
        {"class_weighting": "balanced"},
        {"label_smoothing": 0.1},
        {"mixup": 0.3},
    ],
)
def test_several_labels_an_image(
    changes: dict[str, object], several_labels: Problem, head_of: MakeHead
) -> None:
    config = TrialConfig(lr=0.03, epochs=20, **changes)  # type: ignore[arg-type]
    suffix = head_of(config, classes=3)
    _, reports = train(suffix, several_labels, config)
    truth = several_labels.validation.labelled.truth
    said = reports[-1].logits > 0
    assert (said == truth).mean() > 0.9
