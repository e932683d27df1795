"""Checkpoints: resumed is the same as uninterrupted."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from autovision.errors import CorruptObject
from autovision.model.network import Suffix
from autovision.space.config import TrialConfig
from autovision.store import MemoryStore
from autovision.trial.checkpoint import Slot, pack, unpack
from autovision.trial.state import Problem, Training
from autovision.trial.train import RungReport, begin, fit, judged_state

MakeMaps = Callable[..., tuple[Suffix, Problem]]
FINE = TrialConfig(backbone="test_resnet", unfreeze=1, epochs=4, lr=1e-2, batch_size=32)

RECIPES: list[dict[str, object]] = [
    {},
    {"optimizer": "sgd", "mixup": 0.4, "cutmix": 1.0},
    {"ema": 0.9, "dropout": 0.3, "drop_path": 0.2},
    {"unfreeze": 2, "unfreeze_schedule": "gradual", "l2_sp": 0.1, "sampling": "balanced"},
    {"patience": 2, "ema": 0.5},
    {"new_weight": 5.0, "distill": 0.5, "mixup": 0.4},
    {"adapters": 1, "head": "mlp"},
    {"unfreeze": 0, "head": "attention", "head_width": 32},
]


@pytest.mark.parametrize("changes", RECIPES)
def test_training_that_is_resumed_after_any_epoch_ends_as_if_it_had_not_been_interrupted(
    changes: dict[str, object], on_maps: MakeMaps
) -> None:
    config = FINE.with_(**changes)
    suffix, problem = on_maps(config)
    begin(suffix, problem, config, 0, math.inf, None)
    whole = Training(suffix, problem, config, 0)
    taken: dict[int, bytes] = {}
    reports = list(fit(whole, math.inf, lambda run: taken.setdefault(run.epoch, pack(run))))  # type: ignore[arg-type,return-value]
    for after in (1, 3):
        if after not in taken:
            pytest.fail(f"there is no checkpoint after epoch {after}: {sorted(taken)}")
        fresh, _ = on_maps(config)
        resumed = Training(fresh.eval(), problem, config, 0)
        unpack(resumed, taken[after])
        rest = list(fit(resumed, math.inf))
        # A rung at the checkpoint itself is told again: its report may have been lost with whoever waited for it.
        expected: list[RungReport] = [report for report in reports if report.epoch >= after]
        assert [(r.epoch, r.rung, r.last, r.metrics, r.train_loss) for r in rest] == [
            (r.epoch, r.rung, r.last, r.metrics, r.train_loss) for r in expected
        ], f"after {after}"
        ends = judged_state(resumed)
        assert all(torch.equal(tensor, ends[name]) for name, tensor in judged_state(whole).items())


def packed(on_maps: MakeMaps, config: TrialConfig, seed: int = 0) -> tuple[Training, bytes]:
    suffix, problem = on_maps(config)
    run = Training(suffix.eval(), problem, config, seed)
    next(fit(run, math.inf))
    return run, pack(run)


def test_a_checkpoint_holds_what_is_trained_and_no_more(on_maps: MakeMaps) -> None:
    run, data = packed(on_maps, FINE.with_(optimizer="sgd"))
    trained = sum(p.numel() for p in run.stages + run.new) * 4
    # The weights and one momentum each; names, statistics of the head and the like beside.
    assert 2 * trained < len(data) < 2 * trained + 40_000


@pytest.mark.parametrize("length", [0, 5, 100, -1])
def test_a_truncated_checkpoint_is_refused(length: int, on_maps: MakeMaps) -> None:
    run, data = packed(on_maps, FINE)
    with pytest.raises(CorruptObject, match="begin anew"):
        unpack(run, data[:length])


def test_a_checkpoint_of_something_else_is_refused(on_maps: MakeMaps) -> None:
    _, data = packed(on_maps, FINE)
    for other, seed in ((FINE.with_(lr=0.5), 0), (FINE, 1)):
        suffix, problem = on_maps(other)
        with pytest.raises(CorruptObject, match="the checkpoint is of"):
            unpack(Training(suffix, problem, other, seed), data)


def test_a_slot_keeps_the_latest() -> None:
    slot = Slot(MemoryStore(), "searches/s/checkpoints/c")
    assert slot.load() is None
    slot.save(b"one")
    slot.save(b"two")
    assert slot.load() == b"two"
    other = Slot(slot._store, slot._key)
    other.save(b"three")
    slot.save(b"four")
    assert other.load() == b"four"
    slot.clear()
    assert slot.load() is None
    other.save(b"five")
    assert slot.load() == b"five"
