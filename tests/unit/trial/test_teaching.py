"""What is new to a champion, what it teaches, and what begins from it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from safetensors.torch import load as load_tensors

from autovision.dataset import manifest
from autovision.dataset.importer import SourceImage, extend
from autovision.dataset.relabel import relabel
from autovision.errors import InvalidInput
from autovision.model.version import read_version
from autovision.records.datasets import Split
from autovision.records.deployments import Label
from autovision.records.models import FinishRecord, ModelVersion
from autovision.space import Space
from autovision.space.config import TrialConfig
from autovision.store import MemoryStore, keys, records
from autovision.trial import folds, teaching
from autovision.trial.checkpoint import Slot
from autovision.trial.data import Labelled, joined
from autovision.trial.loss import losses, sample_weights, soft_targets
from autovision.trial.splits import load_splits
from autovision.trial.teaching import learnt_tensors, logits_of, served_tensors, suffix_of, taught
from autovision.trial.train import score
from autovision.trial.trial import Trial
from autovision.trial.workbench import Workbench

if TYPE_CHECKING:
    from tests.unit.conftest import History


def old_images(tiny: History) -> set[str]:
    return {row.image for row in manifest.read(tiny.store, tiny.versions[0])}


# ----------------------------------------------------------------------------------------------- what is new


def test_new_is_what_the_champions_version_does_not_have(tiny: History) -> None:
    splits = load_splits(tiny.store, "colours@2", tiny.models[0].id)
    for split in (splits.train, splits.validation, splits.test):
        assert split.new is not None
        assert [not new for new in split.new.tolist()] == [
            image in old_images(tiny) for image in split.images
        ]
    assert splits.champion == tiny.models[0].id


def test_to_a_champion_of_this_very_version_nothing_is_new(tiny: History) -> None:
    splits = load_splits(tiny.store, "colours@2", tiny.models[1].id)
    assert splits.train.new is not None and not splits.train.new.any()
    assert splits.validation.times == 1


@pytest.mark.parametrize("champion", [None, "colours-m-gone"])
def test_without_a_champion_new_is_what_the_version_before_does_not_have(
    tiny: History, champion: str | None
) -> None:
    splits = load_splits(tiny.store, "colours@2", champion)
    assert splits.train.new is not None
    assert int(splits.train.new.sum()) == sum(i not in old_images(tiny) for i in splits.train.images)
    assert (splits.champion, splits.validation.times) == (None, 1)
    assert load_splits(tiny.store, "colours@1").train.new is None


def test_an_image_with_another_label_is_news(tiny: History) -> None:
    store = tiny.copy()
    row = next(row for row in manifest.read(store, tiny.versions[1]) if row.split is Split.TRAIN)
    other = {"red": "blue", "blue": "red"}[str(row.label)]
    word = Label(request_id=row.image, label=other, annotator="eve", received_at=datetime.now(UTC))
    version = relabel(store, tiny.versions[1], {row.image: word})
    train = load_splits(store, version.id, tiny.models[1].id).train
    assert train.new is not None
    assert [image for image, new in zip(train.images, train.new, strict=True) if new] == [row.image]


def test_few_new_images_of_validation_count_as_more(
    tiny: History, paint_images: Callable[..., list[Path]], tmp_path: Path
) -> None:
    """Of 18 old and 2 new ones each new one counts as √(18 / 2) = 3."""
    store = tiny.copy()
    store.delete(keys.dataset_version("colours", 2))
    paths = paint_images(tmp_path, 6, seed=5, shifted=True)
    sources = [SourceImage(label=path.parent.name, path=path) for path in paths]
    version = extend(store, tiny.versions[0], sources, seed=0)
    assert version.version == 2 and version.parent == 1
    splits = load_splits(store, version.id, tiny.models[0].id)
    validation = splits.validation
    assert validation.new is not None
    new = int(validation.new.sum())
    assert (len(validation) - new, new) == (18, 2)
    assert validation.times == splits.train.times == 3
    assert len(validation.counted) == 18 + 3 * new
    assert np.bincount(validation.counted).tolist() == validation.repeats.tolist()
    groups = validation.counted_groups
    assert len(set(groups)) == len(validation) and len(groups) == len(validation.counted)
    assert load_splits(store, version.id).validation.times == 1


def test_figures_count_each_image_as_often_as_its_split_says() -> None:
    """One right old image and one wrong new one: with the new one three times, a quarter is right."""
    targets = torch.eye(2)
    split = Labelled(("a", "b"), targets, torch.ones(2), new=torch.tensor([False, True]), times=3)
    logits = np.array([[5.0, -5.0], [5.0, -5.0]], np.float32)
    assert score(logits, split, None)["accuracy"] == 0.25
    assert score(logits, replace(split, times=1), None)["accuracy"] == 0.5
    assert split.groups == () and split.counted_groups == ("a", "b", "b", "b")


# ------------------------------------------------------------------------------------------- how it is learnt


def test_what_is_new_weighs_more_and_the_mean_stays() -> None:
    split = Labelled(("a", "b", "c"), torch.eye(3), torch.ones(3), new=torch.tensor([True, False, False]))
    weights = sample_weights(split, TrialConfig(new_weight=4.0))
    assert weights.tolist() == pytest.approx([2.0, 0.5, 0.5])
    assert sample_weights(split, TrialConfig()).tolist() == [1.0, 1.0, 1.0]
    assert sample_weights(replace(split, new=None), TrialConfig(new_weight=4.0)).tolist() == [1.0] * 3


@pytest.mark.parametrize("several", [False, True])
def test_its_gradient_is_that_of_the_label_and_of_the_divergence_from_the_champion(several: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 3, generator=generator, requires_grad=True)
    said = torch.randn(4, 3, generator=generator)
    q = said.sigmoid() if several else said.softmax(1)
    targets = torch.eye(3)[[0, 1, 2, 0]]
    split = Labelled(tuple("abcd"), targets, torch.ones(4), several, taught=q)
    config = TrialConfig(distill=0.3)
    mixed = losses(logits, soft_targets(split, 0.0, config.distill), config, multi_label=several).sum()
    (mine,) = torch.autograd.grad(mixed, logits)
    plain = losses(logits, targets, config, multi_label=several).sum()
    if several:
        p = logits.sigmoid()
        divergence = (q * (q / p).log() + (1 - q) * ((1 - q) / (1 - p)).log()).mean(1).sum()
    else:
        divergence = (q * (q.log() - logits.log_softmax(1))).sum()
    (expected,) = torch.autograd.grad(0.7 * plain + 0.3 * divergence, logits)
    torch.testing.assert_close(mine, expected)


def unsure(tiny: History) -> MemoryStore:
    """With a first model that knows these easy images as before, and is not certain of them."""
    store, champion = tiny.copy(), tiny.models[0]
    store.delete(keys.model(champion.id))
    records.create(store, keys.model(champion.id), champion.with_(temperature=60.0 * champion.temperature))
    return store


def test_the_champion_says_what_it_said_of_what_it_knew_and_nothing_of_the_rest(tiny: History) -> None:
    store = unsure(tiny)
    bench, champion = Workbench(store, 1), read_version(store, tiny.models[0].id)
    splits = bench.splits("colours@2", champion.id)
    config = TrialConfig.model_validate(champion.lineage.config).with_(distill=0.5)
    assert taught(bench, splits, splits.train, [config.with_(distill=0.0)]) is splits.train
    told = taught(bench, splits, splits.train, [config])
    assert told.taught is not None and told.new is not None
    torch.testing.assert_close(told.taught[told.new], told.targets[told.new])
    logits = torch.from_numpy(logits_of(bench, champion, splits.train)).double()
    said = (logits / champion.temperature).softmax(1).float()
    torch.testing.assert_close(told.taught[~told.new], said[~told.new])
    assert (said[~told.new] - told.targets[~told.new]).abs().max() > 0.01


def test_it_is_asked_once(tiny: History, monkeypatch: pytest.MonkeyPatch) -> None:
    store, champion = tiny.copy(), tiny.models[0]
    config = TrialConfig.model_validate(champion.lineage.config).with_(distill=0.5)

    def told() -> torch.Tensor:
        bench = Workbench(store, 1)
        splits = bench.splits("colours@2", champion.id)
        said = taught(bench, splits, splits.train, [config]).taught
        assert said is not None
        return said

    first = told()
    assert len(list(store.list(f"models/{champion.id}/taught/"))) == 1
    monkeypatch.setattr(teaching, "logits_of", None)
    assert torch.equal(told(), first)


def test_its_answers_are_in_the_columns_of_its_classes(
    tiny: History, paint_images: Callable[..., list[Path]], tmp_path: Path
) -> None:
    store, champion = tiny.copy(), tiny.models[0]
    paths = paint_images(tmp_path, 4, seed=7)
    version = extend(
        store, tiny.versions[1], [SourceImage(label="green", path=path) for path in paths], seed=0
    )
    bench = Workbench(store, 1)
    splits = bench.splits(version.id, champion.id)
    config = TrialConfig.model_validate(champion.lineage.config).with_(distill=1.0)
    told = taught(bench, splits, splits.train, [config])
    assert told.taught is not None and told.new is not None
    assert splits.version.classes == ("blue", "green", "red")
    assert not told.taught[~told.new][:, 1].any()
    torch.testing.assert_close(told.taught.sum(1), torch.ones(len(told)))


def test_without_a_champion_there_is_nobody_to_learn_from(tiny: History) -> None:
    config = TrialConfig.model_validate(tiny.models[0].lineage.config).with_(distill=0.5, epochs=1)
    with pytest.raises(InvalidInput, match=r"distill=0\.5: there is no champion"):
        next(Trial(Workbench(tiny.copy(), 1), "colours@2", config, 0, math.inf).run())


def test_a_head_that_learns_from_the_champion_alone_answers_as_it_does(tiny: History) -> None:
    """With all of the target the champion's, nothing of the labels of old images is seen."""
    store = unsure(tiny)
    bench, champion = Workbench(store, 1), read_version(store, tiny.models[0].id)
    own = TrialConfig.model_validate(champion.lineage.config).with_(epochs=60, label_smoothing=0.0)
    splits = bench.splits("colours@2", champion.id)
    assert splits.validation.new is not None
    old = ~splits.validation.new.numpy()
    known = torch.from_numpy(logits_of(bench, champion, splits.validation) / champion.temperature).softmax(1)

    def distance(distill: float) -> float:
        config = own.with_(distill=distill)
        trial = Trial(bench, "colours@2", config, 0, math.inf, champion=champion.id)
        *_, last = trial.run()
        said = torch.from_numpy(last.logits).softmax(1)
        return float((said - known).abs()[old].mean())

    assert distance(1.0) < 0.5 * distance(0.0)


# ------------------------------------------------------------------------------------------- what begins from it


class Deep(Space):
    backbone = "test_resnet"
    weights = "random"
    resolution = 64
    unfreeze = 1
    l2_sp = 0.0
    lr = 1e-2
    epochs = 3
    batch_size = 16


@pytest.fixture(scope="module")
def deep(tiny: History, run_search_alone: Callable[..., ModelVersion]) -> tuple[MemoryStore, ModelVersion]:
    """A champion that trained a stage of its backbone, and was not trained again on validation."""
    store = tiny.copy()
    request = tiny.searches[0].with_(space=Deep.to_json(), max_trials=1, warm_start=False, refit=False)
    return store, run_search_alone(store, request, Workbench(store, 1))


def test_what_it_serves_is_found_by_the_names_that_trials_give(
    deep: tuple[MemoryStore, ModelVersion],
) -> None:
    store, champion = deep
    bench, config = Workbench(store, 1), TrialConfig.model_validate(champion.lineage.config)
    suffix = suffix_of(bench, config, 2)
    served = served_tensors(store, champion, suffix)
    (done,) = records.read_all(store, keys.finishes(champion.lineage.search), FinishRecord)
    trained = load_tensors(store.get(done.final_key).data)
    assert served.keys() == trained.keys() == suffix.trained_state().keys()
    assert any(name.startswith("upper.") for name in served)
    assert all(torch.equal(served[name], trained[name]) for name in trained)
    assert learnt_tensors(store, champion, suffix).keys() == served.keys()


def test_a_trial_that_trains_the_same_begins_with_all_of_it(deep: tuple[MemoryStore, ModelVersion]) -> None:
    store, champion = deep
    bench = Workbench(store, 1)
    config = TrialConfig.model_validate(champion.lineage.config).with_(lr=1e-9, epochs=1, l2_sp=0.1)
    trial = Trial(bench, "colours@2", config, 0, math.inf, initial=champion.id, champion=champion.id)
    report = next(trial.run())
    np.testing.assert_allclose(
        report.logits, logits_of(bench, champion, trial.splits.validation), atol=2e-2, rtol=2e-2
    )
    assert trial.notes == ()
    tensors = learnt_tensors(store, champion, trial.suffix)
    names = [name for name in trial.suffix.trained_state() if name.startswith("upper.")]
    starts = trial.training.start
    assert len(starts) == len(names)
    assert all(torch.equal(start, tensors[name]) for start, name in zip(starts, names, strict=True))


def test_one_that_trains_other_parts_takes_the_head_alone(deep: tuple[MemoryStore, ModelVersion]) -> None:
    store, champion = deep
    config = TrialConfig.model_validate(champion.lineage.config).with_(unfreeze=2, epochs=1)
    trial = Trial(Workbench(store, 1), "colours@2", config, 0, math.inf, initial=champion.id)
    known = trial._initial()
    assert known is not None and all(name.startswith("head.") for name in known)
    assert next(trial.run()).last and trial.notes == ()


def test_a_trial_that_is_resumed_is_still_held_to_the_champion(
    deep: tuple[MemoryStore, ModelVersion],
) -> None:
    """The pull of L2-SP is towards where it began, which a checkpoint does not hold."""
    store, champion = deep
    config = TrialConfig.model_validate(champion.lineage.config).with_(epochs=3, l2_sp=1.0)

    def trial() -> Trial:
        return Trial(
            Workbench(store, 1), "colours@2", config, 0, math.inf, initial=champion.id, champion=champion.id
        )

    whole = trial()
    list(whole.run())
    slot = Slot(store, keys.checkpoint("s", config.digest, 0))
    broken = trial().run(slot=slot)
    next(broken)
    next(broken)  # the checkpoint of the first rung is there once the next one is asked for
    assert store.exists(keys.checkpoint("s", config.digest, 0))
    resumed = trial()
    list(resumed.run(slot=slot))
    assert any("went on from a checkpoint" in note for note in resumed.notes)
    ends = resumed.suffix.trained_state()
    assert all(torch.equal(tensor, ends[name]) for name, tensor in whole.suffix.trained_state().items())


# ----------------------------------------------------------------------------------------------- the golden set


def test_test_images_are_needed_by_no_training_no_refit_and_no_folds(tiny: History) -> None:
    """The golden set: everything that trains or chooses does so though its images, and their features, are gone."""
    store, champion = tiny.copy(), tiny.models[0]
    for row in manifest.read(store, tiny.versions[1]):
        if row.split is Split.TEST:
            store.delete(keys.image(row.image))
    for key in list(store.list(keys.FEATURES)):
        store.delete(key)
    bench = Workbench(store, 1)
    config = TrialConfig.model_validate(champion.lineage.config).with_(distill=0.5, new_weight=2.0, epochs=2)
    asked: list[str] = []
    source = bench.source(config)
    prefix = source.prefix

    def watched(images: tuple[str, ...], *args: object, **kwargs: object) -> object:
        asked.extend(images)
        return prefix(images, *args, **kwargs)  # type: ignore[arg-type]

    source.prefix = watched  # type: ignore[assignment,method-assign]
    trial = Trial(bench, "colours@2", config, 0, math.inf, initial=champion.id, champion=champion.id)
    list(trial.run())
    Trial(bench, "colours@2", config, 0, math.inf, champion=champion.id).refit(1)
    splits = bench.splits("colours@2", champion.id)
    found = folds.cross_validated(bench, splits, [config], [2], 0, time.time() + 60)
    assert found[0] is not None and not np.isnan(found[0]).any()
    assert set(asked) == {*splits.train.images, *splits.validation.images}
    assert not set(asked) & set(splits.test.images)
    assert read_version(store, champion.id).lineage.dataset == "colours@1"


def test_what_is_trained_again_keeps_what_is_new_and_what_is_taught(tiny: History) -> None:
    bench, champion = Workbench(tiny.copy(), 1), tiny.models[0]
    splits = bench.splits("colours@2", champion.id)
    config = TrialConfig.model_validate(champion.lineage.config).with_(distill=0.5)
    both = joined(*(taught(bench, splits, s, [config]) for s in (splits.train, splits.validation)))
    assert both.new is not None and both.taught is not None
    at = {image: n for n, image in enumerate(both.images)}
    for split in (splits.train, splits.validation):
        told = taught(bench, splits, split, [config])
        assert told.new is not None and told.taught is not None
        rows = [at[image] for image in split.images]
        assert torch.equal(both.new[rows], told.new) and torch.equal(both.taught[rows], told.taught)
