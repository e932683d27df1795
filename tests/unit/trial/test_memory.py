"""Memory: predicted, admitted, and less of it after it ran out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from autovision.model.network import Suffix
from autovision.space.config import TrialConfig
from autovision.trial import memory, train
from autovision.trial.memory import Footprint, TooLarge, allowance, is_out_of_memory, parts_that_fit, predict
from autovision.trial.optim import unlock
from autovision.trial.state import Problem, Training
from autovision.trial.train import RungReport
from autovision.trial.trial import Trial
from autovision.trial.workbench import Workbench

if TYPE_CHECKING:
    from tests.unit.conftest import History

MakeMaps = Callable[..., tuple[Suffix, Problem]]
FINE = TrialConfig(backbone="test_resnet", unfreeze=1, batch_size=32)


def footprint(on_maps: MakeMaps, **changes: object) -> Footprint:
    config = FINE.with_(**changes)
    suffix, problem = on_maps(config)
    return predict(Training(suffix.eval(), problem, config, 0))


def test_more_of_everything_takes_more(on_maps: MakeMaps) -> None:
    plain = footprint(on_maps)
    assert footprint(on_maps, mixup=0.2).image > plain.image
    assert footprint(on_maps, optimizer="sgd").fixed < plain.fixed < footprint(on_maps, ema=0.9).fixed
    assert plain.of(64) - plain.of(32) == pytest.approx(32 * 1.1 * plain.image, rel=1e-3)


def test_what_is_locked_at_first_is_counted_too(on_maps: MakeMaps) -> None:
    config = FINE.with_(unfreeze=2)
    suffix, problem = on_maps(config)
    run = Training(suffix.eval(), problem, config, 0)
    expected = predict(run)
    unlock(suffix, config.with_(unfreeze_schedule="gradual"), 0)
    assert predict(run) == expected


def test_batches_are_split_until_they_fit() -> None:
    takes = Footprint(fixed=1000, image=100)
    assert parts_that_fit(takes, 64, takes.of(64)) == 1
    assert parts_that_fit(takes, 64, takes.of(64) - 1) == 2
    assert parts_that_fit(takes, 64, takes.of(16)) == 4
    assert parts_that_fit(takes, 3, takes.of(1)) == 4
    with pytest.raises(TooLarge, match="MB even image by image, and this trial may take"):
        parts_that_fit(takes, 64, takes.of(1) - 1)


def test_a_trial_may_take_its_share_of_the_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory.os, "sched_getaffinity", lambda pid: range(8))
    monkeypatch.setattr(memory, "_free", lambda: 1000)
    assert allowance(torch.device("cpu"), 2) == 225
    assert allowance(torch.device("cpu"), 99) == 900


def test_trials_that_share_a_gpu_leave_each_other_their_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    fraction = [1.0]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (800, 1000))
    monkeypatch.setattr(torch.cuda, "get_per_process_memory_fraction", lambda device=None: fraction[0])
    monkeypatch.setattr(
        torch.cuda, "set_per_process_memory_fraction", lambda share: fraction.__setitem__(0, share)
    )
    assert allowance(torch.device("cuda"), 1) == 720
    memory.share_gpu(0.25)
    assert allowance(torch.device("cuda"), 1) == 225
    memory.share_gpu(1.0)
    assert allowance(torch.device("cuda"), 1) == 720


def test_the_limit_of_a_container_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    limit, used = tmp_path / "limit", tmp_path / "used"
    monkeypatch.setattr(memory, "_CGROUPS", ((limit, used),))
    free = memory._free()
    assert free > 0, "no such files"
    limit.write_text("5000\n")
    used.write_text("2000\n")
    assert memory._free() == 3000
    limit.write_text("max\n")
    assert memory._free() > 3000


def test_errors_that_say_so() -> None:
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


def trial_of(tiny: History, **changes: object) -> Trial:
    fixed = {"backbone": "test_resnet", "weights": "random", "resolution": 64, "epochs": 2, "batch_size": 16}
    wanted = TrialConfig.model_validate({**fixed, "unfreeze": 1, "taps": 2, **changes})
    return Trial(Workbench(tiny.copy(), threads=1), "colours@1", wanted, 0, float("inf"))


def test_a_trial_that_would_not_fit_is_computed_in_parts_with_the_same_result(
    tiny: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = trial_of(tiny)
    expected = list(whole.run())[-1]
    takes = predict(whole.training)
    monkeypatch.setattr("autovision.trial.trial.allowance", lambda device, threads: takes.of(5))
    trial = trial_of(tiny)
    report = list(trial.run())[-1]
    assert trial.training.accumulate == 4
    (note,) = trial.notes
    assert note.startswith("batches of 16 would take")
    assert "computed in 4 parts" in note
    assert report.train_loss == pytest.approx(expected.train_loss, rel=1e-3)
    monkeypatch.setattr("autovision.trial.trial.allowance", lambda device, threads: 1000)
    with pytest.raises(TooLarge):
        next(trial_of(tiny).run())


def test_a_trial_that_runs_out_of_memory_is_tried_again_once_with_half_the_batch(
    tiny: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    """tests/slow has it with memory that is really short."""

    def short(run: Training, deadline: float, on_epoch: Callable[[Training], None]) -> Iterator[RungReport]:
        for report in train.fit(run, deadline, on_epoch):
            yield report
            if run.accumulate == 1:
                torch.empty(1 << 60, dtype=torch.uint8)

    expected = list(trial_of(tiny, epochs=9).run())
    monkeypatch.setattr("autovision.trial.trial.fit", short)
    trial = trial_of(tiny, epochs=9)
    reports = list(trial.run())
    assert trial.training.accumulate == 2
    assert trial.notes == ("out of memory: tried again with each batch in 2 parts, gradients accumulated",)
    # What was reported before is not reported again.
    assert [report.epoch for report in reports] == [report.epoch for report in expected] == [1, 3, 9]
    assert reports[-1].train_loss == pytest.approx(expected[-1].train_loss, rel=1e-2)


def test_memory_that_is_short_for_half_the_batch_too_is_an_error(
    tiny: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[int] = []

    def short(run: Training, deadline: float, on_epoch: object) -> Iterator[RungReport]:
        begun.append(run.accumulate)
        torch.empty(1 << 60, dtype=torch.uint8)
        yield from ()

    monkeypatch.setattr("autovision.trial.trial.fit", short)
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        list(trial_of(tiny).run())
    assert begun == [1, 2]
