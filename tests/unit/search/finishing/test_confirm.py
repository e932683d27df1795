"""Judging the best trials once more, on more images."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from autovision.dataset.importer import import_dataset
from autovision.features.compute import OutOfTime
from autovision.records.base import now
from autovision.records.searches import SearchRequest
from autovision.records.trials import TrialResult, TrialState
from autovision.search import requests
from autovision.search.finishing.confirm import MOST, Confirmed, candidates, confirm
from autovision.search.finishing.court import court_of
from autovision.search.select import best_trial
from autovision.space.config import TrialConfig
from autovision.store import MemoryStore
from autovision.trial import folds
from autovision.trial.data import Labelled
from autovision.trial.workbench import Workbench

if TYPE_CHECKING:
    from tests.unit.conftest import History


def line(number: int, value: float | None, **config: Any) -> TrialResult:
    return TrialResult(
        search="s",
        trial=f"t{number}",
        number=number,
        state=TrialState.COMPLETE,
        config=TrialConfig(**config).model_dump(mode="json"),
        parameters={},
        origin="sampled",
        value=value,
        weights_key=None if value is None else f"w{number}",
        seconds=1.0,
        created_at=now(),
    )


def split(labels: list[int], groups: tuple[str, ...] = ()) -> Labelled:
    targets = torch.eye(3)[labels]
    return Labelled(
        tuple(f"i{i}" for i in range(len(labels))), targets, torch.ones(len(labels)), groups=groups
    )


# ------------------------------------------------------------------------------------------------ folds


def test_folds_are_stratified_and_the_same_for_a_seed() -> None:
    of = split([0] * 50 + [1] * 25 + [2] * 5)
    fold = folds.folds_of(of, 5, 7)
    for number in range(5):
        counts = np.bincount(of.truth[fold == number], minlength=3)
        assert counts.tolist() == [10, 5, 1]
    assert (fold == folds.folds_of(of, 5, 7)).all() and (fold != folds.folds_of(of, 5, 8)).any()


def test_images_of_a_group_are_in_one_fold() -> None:
    labels = [i % 3 for i in range(90)]
    of = split(labels, tuple(f"g{i // 6}" for i in range(90)))
    fold = folds.folds_of(of, 5, 0)
    assert all(len(set(fold[i : i + 6])) == 1 for i in range(0, 90, 6))
    assert set(fold) == set(range(5))


def test_groups_are_read_from_the_data_set(tiny: History) -> None:
    assert Workbench(tiny.copy(), 1).splits("colours@1").train.groups == ()


Paint = Callable[..., list[Path]]


def grouped(root: Path, paint_images: Paint, *, patients: int) -> MemoryStore:
    """A data set `scans` of 120 images by so many patients; validation and test have patients of their own."""
    paint_images(root, 60)
    lines = ["path,label,split,group"]
    for i, path in enumerate(sorted(root.rglob("*.png"))):
        split = ("validation", "test")[i % 10] if i % 10 < 2 else "train"
        patient = f"{split} {i % patients}"
        lines.append(f"{path.relative_to(root)},{path.parent.name},{split},{patient}")
    (root / "labels.csv").write_text("\n".join(lines))
    store = MemoryStore()
    import_dataset(store, root / "labels.csv", "scans", seed=0)
    return store


@pytest.mark.parametrize("patients", [1, 3, 7])
def test_however_few_groups_a_data_set_has_none_is_divided(
    patients: int, tiny: History, paint_images: Paint, tmp_path: Path
) -> None:
    bench = Workbench(grouped(tmp_path, paint_images, patients=patients), threads=2)
    splits = bench.splits("scans@1")
    train = splits.train
    assert len(set(train.groups)) == patients
    fold = folds.folds_of(train, 5, 0)
    assert all(len(set(fold[np.array(train.groups) == group])) == 1 for group in set(train.groups))
    assert len(set(fold)) == min(patients, 5)
    config = tiny.space.config(tiny.space.default())
    (logits,) = folds.cross_validated(bench, splits, [config], [config.epochs], 0, time.time() + 60)
    if patients == 1:
        assert logits is None, "nobody is left to learn from"
    else:
        assert logits is not None and np.isfinite(logits).all()


def test_a_class_of_one_group_alone_is_judged_by_heads_that_never_saw_it(
    tiny: History, paint_images: Paint, tmp_path: Path
) -> None:
    bench = Workbench(grouped(tmp_path, paint_images, patients=7), threads=2)
    splits = bench.splits("scans@1")
    named = zip(splits.train.truth, splits.train.groups, strict=True)
    train = replace(splits.train, groups=tuple("one" if label == 0 else name for label, name in named))
    config = tiny.space.config(tiny.space.default())
    (logits,) = folds.cross_validated(
        bench, replace(splits, train=train), [config], [config.epochs], 0, time.time() + 60
    )
    assert logits is not None
    assert (logits[train.truth == 0].argmax(1) == 1).all()


def test_heads_judged_under_other_views_than_they_train_on_are_left_out() -> None:
    assert folds.can_be(TrialConfig(augmentation="flip"))
    assert folds.can_be(TrialConfig(augmentation="dihedral", test_time_augmentation="dihedral"))
    assert not folds.can_be(TrialConfig(augmentation="none", test_time_augmentation="dihedral"))
    assert not folds.can_be(TrialConfig(unfreeze=1))


@pytest.mark.parametrize("augmentation", ["randaugment", "trivialaugment"])
def test_heads_whose_views_are_drawn_afresh_are_left_out(augmentation: Any) -> None:
    assert not folds.can_be(TrialConfig(augmentation=augmentation, views=0))
    assert folds.can_be(TrialConfig(augmentation=augmentation, views=2))
    fresh = line(1, 0.9, augmentation=augmentation, views=0)
    assert [r.number for r in candidates([line(0, 0.9), fresh], 300)] == [0]


def test_no_image_is_judged_by_a_head_that_saw_it(tiny: History) -> None:
    """Labels that nothing explains: whoever saw an image knows its label, and nobody else can."""
    bench = Workbench(tiny.copy(), threads=2)
    splits = bench.splits("colours@2")
    train = splits.train
    rng = np.random.default_rng(0)
    drawn = torch.eye(2)[torch.from_numpy(rng.integers(0, 2, len(train)))]
    made_up = Labelled(train.images, drawn, train.confidence)
    config = tiny.space.config(tiny.space.default()).with_(
        head="mlp", head_width=64, lr=3e-2, epochs=60, weight_decay=0.0, dropout=0.0
    )
    (logits,) = folds.cross_validated(
        bench, replace(splits, train=made_up), [config], [config.epochs], 0, time.time() + 60
    )
    assert logits is not None and logits.shape == (len(train), 2)
    right = float((logits.argmax(1) == made_up.truth).mean())
    assert abs(right - 0.5) < 0.2


def test_it_ends_at_the_deadline(tiny: History) -> None:
    bench = Workbench(tiny.copy(), threads=2)
    config = tiny.space.config(tiny.space.default())
    with pytest.raises(OutOfTime):
        folds.cross_validated(bench, bench.splits("colours@1"), [config], [config.epochs], 0, time.time() - 1)


@pytest.mark.parametrize(("seconds", "heads"), [(100.0, 6), (39.0, 3), (24.0, 2), (9.0, 2)])
def test_where_heads_take_longer_than_predicted_fewer_are_judged(
    tiny: History, monkeypatch: pytest.MonkeyPatch, seconds: float, heads: int
) -> None:
    """A head takes two seconds in a fold, by a clock that stands still otherwise: ten for all folds of one."""
    bench = Workbench(tiny.copy(), threads=2)
    splits = bench.splits("colours@2")
    configs = [tiny.space.config(tiny.space.default()).with_(epochs=2)] * 6
    clock, judge = [1000.0], folds._judged

    def slow(bench: Any, train: Any, positive: Any, configs: Any, *rest: Any) -> Any:
        clock[0] += 2.0 * len(configs)
        if clock[0] > 1000.0 + seconds:
            raise OutOfTime
        return judge(bench, train, positive, configs, *rest[:-1], float("inf"))

    monkeypatch.setattr(folds, "_judged", slow)
    monkeypatch.setattr(folds, "time", SimpleNamespace(time=lambda: clock[0]))
    found = folds.cross_validated(bench, splits, configs, [2] * 6, 0, 1000.0 + seconds)
    judged = [logits for logits in found if logits is not None]
    assert [logits is not None for logits in found] == [True] * len(judged) + [False] * (6 - len(judged))
    assert len(judged) == heads
    rows = [np.isfinite(logits).all(1) for logits in judged]
    assert all(np.array_equal(own, rows[0]) for own in rows), "the same images for all"
    assert rows[0].all() == (seconds > 20), "fewer heads rather than fewer images, as long as there are two"


def test_patience_does_not_choose_the_epoch_on_the_fold_that_judges(tiny: History) -> None:
    """With patience a head is judged after the epochs that it is given, as without; these differ in what they give."""
    bench = Workbench(tiny.copy(), threads=2)
    splits = bench.splits("colours@2")
    plain = tiny.space.config(tiny.space.default()).with_(epochs=12, lr=0.3)
    configs = [plain, plain.with_(patience=1), plain, plain.with_(patience=1)]
    found = folds.cross_validated(bench, splits, configs, [12, 12, 2, 2], 0, time.time() + 60)
    whole, patient, short, patient_short = (logits for logits in found if logits is not None)
    np.testing.assert_allclose(patient, whole)
    np.testing.assert_allclose(patient_short, short)
    assert not np.allclose(short, whole)


# ------------------------------------------------------------------------------------------- candidates


def test_candidates_are_the_best_and_the_best_of_other_features() -> None:
    ledger = [line(i, 0.900 - 0.0001 * i) for i in range(20)]
    ledger += [line(20, 0.89, augmentation="flip"), line(21, 0.885, augmentation="flip")]
    ledger += [line(22, 0.5, augmentation="dihedral"), line(23, 0.99, unfreeze=1), line(24, None)]
    assert [r.number for r in candidates(ledger, 300)] == [0, 1, 2, 3, 20]
    assert candidates([], 300) == []
    many = [line(i, 0.9, resolution=64 + 32 * i) for i in range(30)]
    assert len(candidates(many, 300)) == MOST


def test_what_is_expected_orders_candidates_where_it_is_not_their_value() -> None:
    ledger = [line(i, 0.90 - 0.001 * i) for i in range(8)]
    expected = {f"t{i}": 0.89 for i in range(7)} | {"t7": 0.9}
    assert [r.number for r in candidates(ledger, 300, expected)] == [7, 0, 1, 2]


# ------------------------------------------------------------------------------------------- confirming


def judged(
    tiny: History,
    ledger: list[TrialResult],
    left_s: float = 60.0,
    beside_champion: bool = False,
    **changes: Any,
) -> Confirmed:
    store = tiny.copy()
    request: SearchRequest = tiny.searches[1].with_(**changes)
    best = best_trial(ledger)
    assert best is not None
    until = time.time() + left_s
    court = court_of(Workbench(store, threads=2), request, until, beside_champion=beside_champion)
    return confirm(court, best, ledger, lambda config: 0.5, until, left_s)


def test_the_lucky_one_gives_way_to_the_one_that_is_better_on_more_images(tiny: History) -> None:
    """What validation says of the worse of two heads is made up to be the best."""
    ledger = requests.trials(tiny.store, tiny.searches[1].id)
    plain = judged(tiny, ledger)
    assert len(plain.judged) == 2
    assert plain.judged[0].confirmed > plain.judged[1].confirmed
    worse = plain.judged[1].trial
    lucky = [r.with_(value=1.0) if r.trial == worse else r for r in ledger]
    found = judged(tiny, lucky)
    assert found.best.trial == plain.judged[0].trial
    assert found.note is not None and f"is better there than {worse}" in found.note
    assert {each.trial: each.confirmed for each in found.judged} == {
        each.trial: each.confirmed for each in plain.judged
    }


def test_a_fine_tuned_trial_that_is_better_on_validation_stays_the_best(tiny: History) -> None:
    ledger = requests.trials(tiny.store, tiny.searches[1].id)
    config = TrialConfig.model_validate(ledger[0].config).with_(unfreeze=1).model_dump(mode="json")
    tuned = ledger[0].with_(trial="tuned", number=9, value=1.5, config=config)
    found = judged(tiny, [*ledger, tuned])
    assert found.best.trial == "tuned" and len(found.judged) == 2
    assert found.note is not None and found.note.startswith("2 heads were judged once more, on ")
    assert found.note.endswith("images: tuned, which cannot be, stays the best by its lead on validation")
    # One that is only as good as the luckiest head gives way to a head that was confirmed to be better.
    worse = found.judged[1].trial
    lucky = [r.with_(value=1.0) if r.trial == worse else r for r in ledger]
    assert judged(tiny, [*lucky, tuned.with_(value=1.0 + 1e-12)]).best.trial == found.judged[0].trial


def test_beside_a_champion_it_is_told_what_is_expected_and_what_is_at_risk(tiny: History) -> None:
    ledger = requests.trials(tiny.store, tiny.searches[1].id)
    found = judged(tiny, ledger, beside_champion=True)
    assert len(found.judged) == 2
    for each in found.judged:
        assert each.chance is not None and each.expected is not None
        assert 0 < each.chance < 1 and each.expected <= each.confirmed
        assert " to " in each.at_risk and each.at_risk.endswith("images)")
    expected = [each.expected for each in found.judged]
    assert expected == sorted(expected, reverse=True)  # type: ignore[type-var]
    alone = judged(tiny, ledger)
    assert all((each.expected, each.chance, each.at_risk) == (None, None, "") for each in alone.judged)
    assert {each.confirmed for each in alone.judged} == {each.confirmed for each in found.judged}


def test_with_objectives_only_the_front_is_judged_once_more(tiny: History) -> None:
    """Another trial that is nearly as good costs more, and so is never the model."""
    first, second, *others = requests.trials(tiny.store, tiny.searches[1].id)
    assert not others
    first, second = first.with_(value=0.9), second.with_(value=0.899)
    small, large = {"latency_ms": 1.0}, {"latency_ms": 2.0}
    beaten = [first.with_(objectives=small), second.with_(objectives=large)]
    traded = [first.with_(objectives=large), second.with_(objectives=small)]
    assert judged(tiny, beaten, objectives=("latency_ms",)) == Confirmed(beaten[0])
    assert len(judged(tiny, traded, objectives=("latency_ms",)).judged) == 2
    assert len(judged(tiny, beaten).judged) == 2


def test_without_time_for_it_the_best_on_validation_is_the_best(tiny: History) -> None:
    ledger = requests.trials(tiny.store, tiny.searches[1].id)
    late = judged(tiny, ledger, left_s=0.5)
    assert late.best == best_trial(ledger) and late.judged == ()
    assert late.note is not None and "were not judged once more" in late.note
    alone = judged(tiny, ledger[:1])
    assert alone.best == ledger[0] and alone.note is None
