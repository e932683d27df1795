"""A trial from its configuration to its trained tensors."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from safetensors.torch import load as load_tensors

from autovision.dataset import manifest
from autovision.dataset.importer import SourceImage, extend, import_images
from autovision.dataset.loader import load_pixels
from autovision.errors import InvalidInput, NotFound
from autovision.features.compute import OutOfTime
from autovision.model.inference import EagerModule
from autovision.records.datasets import Split
from autovision.records.models import ModelVersion
from autovision.space.config import TrialConfig
from autovision.store import MemoryStore
from autovision.trial.splits import load_splits
from autovision.trial.teaching import by_class, logits_of
from autovision.trial.trial import Trial, assemble, weights_key
from autovision.trial.workbench import Workbench

if TYPE_CHECKING:
    from tests.unit.conftest import History


def config(**changes: object) -> TrialConfig:
    fixed = {"backbone": "test_resnet", "weights": "random", "resolution": 64, "epochs": 3, "batch_size": 16}
    return TrialConfig.model_validate({**fixed, **changes})


@pytest.fixture(scope="module")
def bench(tiny: History) -> Workbench:
    return Workbench(tiny.copy(), threads=2)


def trial_of(bench: Workbench, wanted: TrialConfig, **options: object) -> Trial:
    return Trial(bench, "colours@1", wanted, **{"seed": 0, "deadline": math.inf, **options})  # type: ignore[arg-type]


def test_splits_hold_every_row_once_with_its_label_and_confidence(
    paint_images: Callable[..., list[Path]], tmp_path: Path
) -> None:
    store, paths = MemoryStore(), paint_images(tmp_path, 8)
    sources = [
        SourceImage(label=path.parent.name, path=path, confidence=0.5 + i / 100)
        for i, path in enumerate(paths)
    ]
    version = import_images(store, "colours", sources, seed=0, positive_class="red")
    splits = load_splits(store, "colours@1")
    assert splits.version == version
    assert splits.positive == version.classes.index("red") == 1
    rows = {row.image: row for row in manifest.read(store, version)}
    found = 0
    for name, split in ((s, getattr(splits, s)) for s in ("train", "validation", "test")):
        assert list(split.images) == sorted(split.images)
        for image, label, confidence in zip(split.images, split.truth, split.confidence, strict=True):
            row = rows[image]
            assert (row.split, row.label) == (Split(name), version.classes[int(label)])
            assert float(confidence) == pytest.approx(row.confidence)
            found += 1
    assert found == version.n == 16


def test_without_a_positive_class_there_is_none(
    paint_images: Callable[..., list[Path]], tmp_path: Path
) -> None:
    store, paths = MemoryStore(), paint_images(tmp_path, 6)
    labels = ["a", "b", "c"] * 4
    version = import_images(
        store,
        "three",
        [SourceImage(label=label, path=path) for label, path in zip(labels, paths, strict=True)],
        seed=0,
    )
    assert load_splits(store, version.id).positive is None


def test_a_data_set_that_is_not_there(tiny: History) -> None:
    with pytest.raises(NotFound, match="colour"):
        load_splits(tiny.store, "colour@1")


def test_a_workbench_loads_each_thing_once(bench: Workbench) -> None:
    assert bench.source(config()) is bench.source(config(unfreeze=2, drop_stages=1, lr=0.1))
    assert bench.source(config()) is not bench.source(config(resolution=96))
    assert bench.channels(config()) is bench.channels(config(pooling="max"))
    assert bench.splits("colours@1") is bench.splits("colours@1")


@pytest.mark.parametrize("averaged", ["none", "dihedral"])
@pytest.mark.parametrize("unfreeze", [0, 2])
def test_what_was_trained_put_together_answers_pixels_as_the_trial_answers_features(
    bench: Workbench, unfreeze: int, averaged: str
) -> None:
    wanted = config(
        unfreeze=unfreeze,
        taps=3,
        drop_stages=1,
        pooling="gem",
        head="mlp",
        lr=0.02,
        test_time_augmentation=averaged,
    )
    trial = trial_of(bench, wanted)
    before = {name: tensor.clone() for name, tensor in trial.suffix.state_dict().items()}
    report = list(trial.run())[-1]
    data = trial.trained()
    tensors = load_tensors(data)
    assert any(not torch.equal(tensor, before[name]) for name, tensor in tensors.items())
    assert any(name.startswith("upper.") for name in tensors) == (unfreeze > 0)

    network = assemble(bench, wanted, data, 2)
    assert not network.training
    validation = trial.splits.validation
    pixels = load_pixels(bench.store, validation.images, bench.source(wanted).preprocessing, threads=2)
    logits, _ = EagerModule(network)(pixels)
    np.testing.assert_allclose(logits, report.logits, atol=0.03, rtol=0.02)
    # What other trials share is as it was.
    untouched = bench.source(wanted).loaded.staged.state_dict()
    again = Trial(bench, "colours@1", wanted, 0, math.inf).suffix.upper.state_dict()
    at = len(bench.channels(wanted)) - 1 - unfreeze
    for name, tensor in again.items():
        number, _, rest = name.removeprefix("stages.").partition(".")
        assert torch.equal(tensor, untouched[f"stages.{int(number) + at}.{rest}"])


def test_the_same_seed_trains_the_same_tensors(bench: Workbench) -> None:
    def trained(seed: int) -> bytes:
        trial = trial_of(bench, config(head="mlp", dropout=0.2), seed=seed)
        list(trial.run())
        return trial.trained()

    first = trained(1)
    assert trained(1) == first
    assert trained(2) != first


def test_a_trial_can_start_from_a_models_head(bench: Workbench, tiny: History) -> None:
    champion = tiny.models[0]
    wanted = TrialConfig.model_validate(champion.lineage.config).with_(lr=1e-6, epochs=1)
    cold = next(trial_of(bench, wanted).run())
    trial = trial_of(bench, wanted, initial=champion.id)
    warm = next(trial.run())
    assert warm.metrics["neg_log_loss"] > cold.metrics["neg_log_loss"] + 0.1
    assert trial.notes == ()


@pytest.mark.parametrize("changes", [{"pooling": "max"}, {"taps": 1}, {"head": "mlp"}, {"drop_stages": 1}])
def test_a_head_that_does_not_fit_is_left_and_noted(
    bench: Workbench, tiny: History, changes: dict[str, object]
) -> None:
    champion = tiny.models[0]
    own = TrialConfig.model_validate(champion.lineage.config)
    wanted = own.with_(epochs=1, pooling="avgmax").with_(**changes)
    trial = trial_of(bench, wanted, initial=champion.id)
    assert next(trial.run()).last
    (note,) = trial.notes
    assert note.startswith(f"the head of {champion.id} does not fit")


def test_rows_of_a_head_follow_the_names_of_the_classes(
    tiny: History, paint_images: Callable[..., list[Path]], tmp_path: Path
) -> None:
    """`green` comes between the two that the champion knows, and begins as in a new head."""
    store, champion = tiny.copy(), tiny.models[0]
    paths = paint_images(tmp_path, 4, seed=7)
    extend(store, tiny.versions[1], [SourceImage(label="green", path=path) for path in paths], seed=0)
    wanted = TrialConfig.model_validate(champion.lineage.config).with_(epochs=1, lr=1e-9)
    bench = Workbench(store, 1)
    trial = Trial(bench, "colours@3", wanted, 0, math.inf, initial=champion.id)
    report = next(trial.run())
    assert trial.splits.version.classes == ("blue", "green", "red")
    assert trial.notes == ()
    known = logits_of(bench, champion, trial.splits.validation)
    np.testing.assert_allclose(report.logits[:, [0, 2]], known, atol=1e-4)
    assert abs(report.logits[:, 1]).max() < 1e-4


@pytest.mark.parametrize("theirs", [("b", "a"), ("a", "x", "b")])
def test_classes_in_another_order_or_that_are_gone(theirs: tuple[str, ...]) -> None:
    tensors = {"head.out.weight": torch.eye(3)[: len(theirs)], "head.mean": torch.ones(3)}
    own = {"head.out.weight": torch.full((2, 3), 7.0), "head.mean": torch.zeros(3)}
    mapped = by_class(tensors, own, theirs, ("a", "b"))
    rows = [theirs.index(name) for name in ("a", "b")]
    assert torch.equal(mapped["head.out.weight"], torch.eye(3)[rows])
    assert torch.equal(mapped["head.mean"], torch.ones(3))


def test_features_past_the_deadline_are_computed_only_where_a_value_is_needed(tiny: History) -> None:
    bench, wanted = Workbench(tiny.copy(), threads=2), config(augmentation="flip", epochs=50)
    with pytest.raises(OutOfTime):
        next(trial_of(bench, wanted, deadline=0.0).run())
    trial = trial_of(bench, wanted, deadline=0.0, must_report=True)
    reports = list(trial.run())
    assert [(report.epoch, report.last) for report in reports] == [(1, True)]
    assert trial.feature_s > 0


def test_a_head_of_the_same_width_that_read_something_else_is_not_taken(
    bench: Workbench, tiny: History, run_search_alone: Callable[..., ModelVersion]
) -> None:
    parameters = tiny.space.to_json()["parameters"] | {"pooling": {"kind": "constant", "value": "max"}}
    space = tiny.space.to_json() | {"parameters": parameters}
    request = tiny.searches[0].with_(space=space, max_trials=1, warm_start=False)
    model = run_search_alone(bench.store, request, bench)
    wanted = TrialConfig.model_validate(model.lineage.config)
    for pooling, notes in (("max", 0), ("gem", 1)):
        trial = trial_of(bench, wanted.with_(pooling=pooling), initial=model.id)
        next(trial.run())
        assert len(trial.notes) == notes


@pytest.mark.parametrize("drop_stages", [5, 7])
@pytest.mark.parametrize("unfreeze", [0, 1])
def test_a_configuration_that_keeps_nothing_is_refused(
    bench: Workbench, drop_stages: int, unfreeze: int
) -> None:
    with pytest.raises(InvalidInput, match=f"drop_stages={drop_stages} leaves nothing of 'test_resnet'"):
        trial_of(bench, config(drop_stages=drop_stages, unfreeze=unfreeze))


def test_more_unfrozen_than_kept_is_refused(bench: Workbench) -> None:
    with pytest.raises(InvalidInput, match="unfreeze=3 is more than the 2 stages"):
        trial_of(bench, config(drop_stages=3, unfreeze=3))


def test_trained_tensors_are_named_by_their_content() -> None:
    digest = hashlib.sha256(b"tensors").hexdigest()
    assert digest[:16] in weights_key("search", "trial", b"tensors")
    assert weights_key("search", "trial", b"others") != weights_key("search", "trial", b"tensors")
