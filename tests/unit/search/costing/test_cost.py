"""Seconds that a trial will take."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import pytest

from autovision.features.shards import FeatureTable
from autovision.features.views import Views
from autovision.model.flops import stage_gflops
from autovision.records.trials import CurvePoint
from autovision.search.arms import arms_of
from autovision.search.costing import arithmetic
from autovision.search.costing.arithmetic import Part
from autovision.search.costing.cost import CostModel, Expected, config_of
from autovision.search.costing.inventory import Inventory
from autovision.search.costing.speeds import Measurement
from autovision.space import Choice, Integer, Space
from autovision.space.config import TrialConfig
from autovision.trial.memory import predict
from autovision.trial.train import rung_epochs
from autovision.trial.trial import Trial

if TYPE_CHECKING:
    pass


def config(**changes: object) -> TrialConfig:
    return TrialConfig.model_validate(
        {"backbone": "test_resnet", "weights": "random", "resolution": 64, **changes}
    )


@pytest.mark.parametrize(
    ("less", "more"),
    [
        ({"resolution": 64}, {"resolution": 96}),
        ({"augmentation": "none"}, {"augmentation": "flip"}),
        ({"augmentation": "flip"}, {"augmentation": "dihedral"}),
        ({"unfreeze": 0}, {"unfreeze": 1}),
        ({"test_time_augmentation": "none"}, {"test_time_augmentation": "dihedral"}),
        ({"unfreeze": 1, "epochs": 9}, {"unfreeze": 1, "epochs": 90}),
        ({"unfreeze": 1, "resolution": 64}, {"unfreeze": 1, "resolution": 128}),
        ({"backbone": "test_resnet"}, {"backbone": "resnet18"}),
    ],
)
def test_more_work_is_predicted_to_take_longer(
    cost: CostModel, less: dict[str, object], more: dict[str, object]
) -> None:
    assert cost.predicted_s(config(**less)) < cost.predicted_s(config(**more))


def test_the_arithmetic_is_that_of_the_images_that_are_needed(cost: CostModel) -> None:
    stages = stage_gflops("test_resnet", 64)
    training, validation = len(cost.splits.train), len(cost.splits.validation)
    whole, views = sum(stages), 2 * training + validation
    assert cost.work(config()).gflops == pytest.approx((training + validation) * whole)
    assert cost.work(config(augmentation="flip")).gflops == pytest.approx(views * whole)
    below = sum(stages[: len(stages) - 1 - 2])
    assert cost.work(config(augmentation="flip", unfreeze=2, drop_stages=1)).gflops == pytest.approx(
        views * (whole + below)
    )


def test_what_is_stored_costs_nothing(cost: CostModel) -> None:
    source, channels = cost.bench.source(config()), cost.bench.channels(config())
    columns = np.arange(3 * sum(channels))[:2]
    half = cost.splits.train.images[: len(cost.splits.train) // 2]
    everything = cost.work(config()).gflops
    source.prefix(half, Views(), cut=None, columns=columns, deadline=math.inf)
    cost.begin(config())  # counts anew
    left = len(cost.splits.train) + len(cost.splits.validation) - len(half)
    assert cost.work(config()).gflops == pytest.approx(left * sum(stage_gflops("test_resnet", 64)))
    for split in (cost.splits.train, cost.splits.validation):
        source.prefix(split.images, Views(), cut=None, columns=columns, deadline=math.inf)
    cost.begin(config())
    assert cost.work(config()).gflops == 0 < everything
    assert cost.predict(config()).features_s == 0
    assert 0 < cost.work(config(augmentation="flip")).gflops < everything, "the image itself is there"


def rung(epoch: int, seconds: float, *, number: int = 0) -> CurvePoint:
    return CurvePoint(rung=number, epoch=epoch, seconds=seconds, search_s=0.0, train_loss=0.0, metrics={})


HEAD, MORE, TUNED = (
    config(),
    config(augmentation="dihedral"),
    config(unfreeze=1, augmentation="flip", epochs=9),
)


class Truth:
    """A node on which each part of a trial takes a factor of what arithmetic says, give or take a tenth."""

    FACTORS: ClassVar = {Part.COMPILE: 2.5, Part.FEATURES: 6.0, Part.START: 0.5, Part.EPOCH: 3.0}

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)

    def seconds(self, begun: Expected, epochs: int) -> tuple[float, float]:
        """Until an epoch is over, and of these features."""
        parts = {part: one * self.FACTORS[part] for part, one in begun.work.parts(epochs)}
        noise = self.rng.lognormal(0, 0.1)
        features = sum(parts.get(part, 0.0) for part in (Part.COMPILE, Part.FEATURES))
        return noise * sum(parts.values()), noise * features

    def run(self, cost: CostModel, config: TrialConfig) -> float:
        """A trial of three rungs; seconds to the first."""
        begun, curve = cost.begin(config), []
        for number, epoch in enumerate(rung_epochs(config.epochs)):
            seconds, features = self.seconds(begun, epoch)
            if curve:
                seconds = max(seconds, curve[-1].seconds + 0.01)
            curve.append(rung(epoch, seconds, number=number))
            cost.observe(begun, curve, features)
        return curve[0].seconds


@pytest.mark.parametrize("config", [HEAD, MORE, TUNED], ids=["head", "views", "tuned"])
def test_predictions_converge_to_what_is_measured(cost: CostModel, config: TrialConfig) -> None:
    truth = Truth()

    def error() -> float:
        begun = cost.begin(config)
        first = sum(
            one * truth.FACTORS[part] for part, one in begun.work.parts(rung_epochs(config.epochs)[0])
        )
        return abs(math.log(cost.predicted_s(config) / first))

    before, wide = error(), cost.predict(config)
    for _ in range(12):
        truth.run(cost, config)
    after = cost.predict(config)
    assert error() < 0.25 < before
    assert after.high / after.low < 0.5 * wide.high / wide.low, "and it says how sure it is"
    assert after.measured > 0.9 and wide.measured == 0.0


def test_a_backbone_that_was_never_tried_is_predicted_from_the_others(cost: CostModel) -> None:
    other = config(backbone="test_efficientnet", augmentation="dihedral")
    before = cost.predicted_s(other)
    for _ in range(6):
        Truth().run(cost, MORE)
    assert cost.predicted_s(other) > 2 * before
    assert cost.predict(other).measured == 0.0


@pytest.mark.parametrize(("slower", "at_least", "at_most"), [(6.0, 2.0, 6.0), (1 / 6, 1.0, 1.0)])
def test_a_node_that_computes_features_slowly_is_taken_to_compile_slowly_too(
    cost: CostModel, slower: float, at_least: float, at_most: float
) -> None:
    """Evaluating no images is compiling, and what comes before the first of them."""
    before = cost.evaluation_s(HEAD, 0, threads=1)
    name, backbone, detail = arithmetic.group(Part.FEATURES, HEAD)
    for _ in range(6):
        cost._speeds.add(
            Measurement(part=name, backbone=backbone, detail=detail, expected_s=1.0, seconds=slower)
        )
    after = cost.evaluation_s(HEAD, 0, threads=1)
    assert at_least * before <= after * (1 + 1e-9) and after <= at_most * before * (1 + 1e-9)


def test_the_next_search_knows_what_this_one_measured(cost: CostModel) -> None:
    untaught = cost.predicted_s(MORE)
    for _ in range(6):
        Truth().run(cost, MORE)
    cost.keep()
    cost.keep()  # what was kept is not kept twice
    following = CostModel(cost.bench, cost.splits)
    assert 0 < following.earlier <= cost.learnt
    assert following.predicted_s(MORE) == pytest.approx(cost.predicted_s(MORE), rel=0.25)
    assert following.predicted_s(MORE) > 2 * untaught
    cold = CostModel(cost.bench, cost.splits, warm=False)
    assert cold.earlier == 0 and cold.predicted_s(MORE) == pytest.approx(untaught)
    elsewhere = CostModel(cost.bench, cost.splits, node=cost.kind.with_(processor="another one"))
    assert elsewhere.predicted_s(MORE) == pytest.approx(untaught)


def test_what_is_measured_is_kept_while_a_search_runs(cost: CostModel) -> None:
    """Whoever is killed has told what it knew."""
    now = [0.0]
    slow = CostModel(cost.bench, cost.splits, clock=lambda: now[0])
    Truth().run(slow, HEAD)
    assert CostModel(cost.bench, cost.splits).earlier == 0
    now[0] += 60.0
    Truth().run(slow, HEAD)
    assert CostModel(cost.bench, cost.splits).earlier > 0


def test_all_epochs_take_longer_than_the_first_rung(cost: CostModel) -> None:
    assert cost.predicted_total_s(TUNED) > cost.predicted_s(TUNED)
    one = TUNED.with_(epochs=1)
    assert cost.predicted_total_s(one) == pytest.approx(cost.predicted_s(one))


def test_being_asked_is_cheap(cost: CostModel) -> None:
    """Hundreds of arms are asked about between two trials: the store is not looked into each time."""
    looked = []
    refresh = FeatureTable.refresh
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FeatureTable, "refresh", lambda *args: looked.append(args) or refresh(*args))
        for _ in range(100):
            cost.predicted_s(TUNED)
        once = len(looked)
        assert 0 < once <= 8
        cost.begin(TUNED)
        assert len(looked) == 2 * once, "what a trial that begins has to do is counted anew"


@pytest.mark.parametrize("cut", [None, 0, 2])
def test_counting_needs_no_network_and_agrees_with_the_source(cost: CostModel, cut: int | None) -> None:
    at_96 = config(resolution=96)
    source, views = cost.bench.source(at_96), Views("flip")
    images = cost.splits.train.images
    columns = np.arange(3 * sum(cost.bench.channels(at_96)))[:2]
    counted = Inventory(cost.bench).missing(at_96, images, "train", views, cut)
    assert counted == source.missing(images, views, cut) > 0
    source.prefix(images[:20], Views(), cut=cut, columns=None if cut == 0 else columns, deadline=math.inf)
    less = Inventory(cost.bench).missing(at_96, images, "train", views, cut)
    assert less == source.missing(images, views, cut) == counted - 20


def test_a_trial_that_reports_nothing_of_use_teaches_nothing(cost: CostModel) -> None:
    begun = cost.begin(TUNED)
    cost.observe(begun, [], 0.0)
    cost.observe(begun, [rung(1, 0.0)], 0.0)
    cost.observe(begun, [rung(1, 1.0), rung(1, 1.0)], 0.0)
    assert cost.learnt == 0


def test_memory_grows_with_what_is_trained(cost: CostModel) -> None:
    head, tuned = cost.memory_bytes(HEAD), cost.memory_bytes(TUNED)
    assert 0 < head < tuned < cost.memory_bytes(TUNED.with_(unfreeze=3))
    assert tuned < cost.memory_bytes(TUNED.with_(batch_size=256))
    assert cost.memory(TUNED) is cost.memory(TUNED.with_(lr=0.5)), "rates take no memory: it is counted once"


def test_the_prediction_of_memory_is_that_of_the_trial_itself(cost: CostModel) -> None:
    for one in (HEAD, TUNED, config(head="attention"), config(unfreeze=1, taps=3, mixup=0.2)):
        trial = Trial(cost.bench, "colours@1", one.with_(epochs=1), seed=0, deadline=math.inf)
        for _ in trial.run():
            pass
        assert cost.memory(one) == predict(trial.training)


def test_an_arm_stands_for_a_configuration_of_its_space() -> None:
    class Fixed(Space):
        backbone = "test_resnet"
        weights = "random"
        resolution = 64
        unfreeze = Integer(0, 2)
        augmentation = Choice("none", "flip")

    defaults = Fixed.config(Fixed.default()).model_dump()
    for arm in arms_of(Fixed()):
        made = config_of(arm, defaults)
        assert (made.backbone, made.weights, made.resolution) == ("test_resnet", "random", 64)
        assert all(getattr(made, name) == value for name, value in arm)
