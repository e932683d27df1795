"""What a space does as a whole: points, conditions, inheritance, configurations, projection."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest

from autovision.errors import InvalidSpace
from autovision.space import Choice, Constant, Float, Integer, Space, TrialConfig


class Mine(Space):
    """Small backbones, heads only.

    Second paragraph:
      indented.
    """

    backbone = Choice("resnet18", "tf_efficientnet_lite0")
    unfreeze = Integer(0, 2)
    lr = Float(1e-4, 1e-2, log=True)
    backbone_lr_ratio = Float(0.02, 0.5, log=True, when={"unfreeze": (1, 2)})
    batch_size = 32


POINT = {"backbone": "resnet18", "unfreeze": 1, "lr": 1e-3, "backbone_lr_ratio": 0.1}


def test_class_and_instance_answer_alike() -> None:
    space = Mine()
    assert space.parameters is Mine.parameters
    assert space.fingerprint == Mine.fingerprint
    assert len(Mine.fingerprint) == 64
    assert space.to_json() == Mine.to_json()
    assert space.default() == Mine.default() == POINT
    assert space.sample(np.random.default_rng(3)) == Mine.sample(np.random.default_rng(3))


def test_a_point_becomes_a_strict_resolved_configuration() -> None:
    config = Mine.config(POINT)
    assert config == TrialConfig(
        backbone="resnet18", unfreeze=1, lr=1e-3, backbone_lr_ratio=0.1, batch_size=32
    )

    class Silent(Space):
        unfreeze = Integer(0, 2)
        layer_decay = Float(0.1, 0.5)

    assert Silent.config({"unfreeze": 2, "layer_decay": 0.2}).layer_decay == 0.2
    assert Silent.config({"unfreeze": 0, "layer_decay": 0.2}) == TrialConfig(), "it has no effect there"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lr": None}, "'lr' is None; it must be in Float(0.0001, 0.01, log=True)"),
        ({"lr": 1}, "'lr' is 1; it must be in Float(0.0001, 0.01, log=True)"),
        ({"unfreeze": 0}, "'backbone_lr_ratio' is only there when 'unfreeze' is 1 or 2; leave it out"),
        ({"batch_size": 32}, "'batch_size' is the constant 32, which a point does not hold; leave it out"),
        ({"lrr": 1}, "'lrr' is no parameter of the space; leave it out; did you mean 'lr'?"),
        ({"unfreeze": True}, "'unfreeze' is True; it must be in Integer(0, 2)"),
        ({"lr": ...}, "'lr' is missing; it must be in Float(0.0001, 0.01, log=True)"),
        ({3: 1}, "3 is no parameter of the space"),
    ],
)
def test_a_point_that_is_not_of_the_space_is_refused(change: dict[Any, Any], message: str) -> None:
    point: dict[str, Any] = {key: value for key, value in {**POINT, **change}.items() if value is not ...}
    assert not Mine.contains(point)
    for method in (Mine.check, Mine.config):
        with pytest.raises(InvalidSpace) as refusal:
            method(point)
        assert str(refusal.value).startswith("point of space 'Mine': ")
        assert message in str(refusal.value)


def test_what_is_no_dictionary_is_no_point() -> None:
    with pytest.raises(InvalidSpace, match=r"a point of space 'Mine' is a dictionary, not \[1\]"):
        Mine.check([1])  # type: ignore[arg-type]


def test_check_gives_the_normal_form() -> None:
    class Steps(Space):
        dropout = Float(0, 0.5, step=0.1)
        mixup = Choice(0.0, 1.0)
        taps = Integer(1, 3)

    checked = Steps.check({"taps": 2.0, "mixup": 1, "dropout": 0.1 + 0.2})
    assert checked == {"dropout": 0.3, "mixup": 1.0, "taps": 2}
    assert [type(value) for value in checked.values()] == [int, float, float]


class Chain(Space):
    head = Choice("linear", "mlp")
    taps = Integer(1, 3, when={"head": "mlp"})
    dropout = Float(0, 0.5, when={"taps": (2, 3), "head": "mlp"})
    pooling = Choice("avg", "gem", when={"head": "linear"})


@pytest.mark.parametrize(
    "point",
    [
        {"head": "linear", "pooling": "gem"},
        {"head": "mlp", "taps": 1},
        {"head": "mlp", "taps": 2, "dropout": 0.1},
    ],
)
def test_conditions_chain(point: dict[str, Any]) -> None:
    assert Chain.contains(point)
    assert not any(Chain.contains({**point, **more}) for more in ({"taps": 9}, {"pooling": "max"}))


def test_a_child_of_what_is_not_there_is_not_there() -> None:
    assert not Chain.contains({"head": "linear", "pooling": "avg", "taps": 2})
    assert not Chain.contains({"head": "linear", "pooling": "avg", "dropout": 0.1})
    shapes = {frozenset(Chain.sample(np.random.default_rng(seed))) for seed in range(60)}
    assert shapes == {
        frozenset({"head", "pooling"}),
        frozenset({"head", "taps"}),
        frozenset({"head", "taps", "dropout"}),
    }


def test_only_active_parameters_are_asked_of_a_trial() -> None:
    class Recorder:
        def __init__(self, unfreeze: int) -> None:
            self.unfreeze = unfreeze
            self.asked: list[tuple[Any, ...]] = []

        def suggest_float(self, name: str, low: float, high: float, **options: Any) -> float:
            self.asked.append((name, low, high, options))
            return low

        def suggest_int(self, name: str, low: int, high: int, **options: Any) -> int:
            self.asked.append((name, low, high, options))
            return self.unfreeze

        def suggest_categorical(self, name: str, choices: Any) -> Any:
            self.asked.append((name, choices))
            return choices[-1]

    heads, deep = Recorder(0), Recorder(2)
    assert Mine.suggest(heads) == {"backbone": "tf_efficientnet_lite0", "unfreeze": 0, "lr": 1e-4}
    assert Mine.suggest(deep)["backbone_lr_ratio"] == 0.02
    assert heads.asked == [
        ("backbone", ["resnet18", "tf_efficientnet_lite0"]),
        ("unfreeze", 0, 2, {"log": False}),
        ("lr", 1e-4, 1e-2, {"step": None, "log": True}),
    ]
    assert [asked[0] for asked in deep.asked] == ["backbone", "unfreeze", "backbone_lr_ratio", "lr"]


# --------------------------------------------------------------------------------------------- inheritance


def test_a_subclass_overrides_adds_and_removes() -> None:
    class Deeper(Mine):
        unfreeze = Integer(1, 2)
        layer_decay = Float(0.4, 1.0, when={"unfreeze": 2})
        backbone = None
        resolution = Constant(None)

    assert list(Deeper.parameters) == [
        "resolution",
        "unfreeze",
        "layer_decay",
        "backbone_lr_ratio",
        "lr",
        "batch_size",
    ]
    assert repr(Deeper.parameters["unfreeze"]) == "Integer(1, 2)"
    assert Deeper.doc == ""
    assert "backbone" in Mine.parameters
    assert Deeper.config(Deeper.default()).resolution is None


def test_a_removed_parameter_stays_removed_below_and_can_come_back() -> None:
    class Without(Mine):
        backbone_lr_ratio = None

    class Below(Without):
        lr = 0.1

    class Again(Below):
        backbone_lr_ratio = 0.5

    assert "backbone_lr_ratio" not in Below.parameters
    assert Again.parameters["backbone_lr_ratio"] == Constant(0.5)


def test_spaces_can_be_mixed() -> None:
    class Recipe(Space):
        lr = Float(0.1, 1)
        weight_decay = Float(1e-5, 1e-2, log=True)

    class Mixed(Recipe, Mine):
        pass

    assert Mixed.parameters["lr"] == Float(0.1, 1.0), "the first base wins, as for any class"
    assert Mixed.parameters.keys() == Mine.parameters.keys() | {"weight_decay"}


def test_an_override_must_fit_the_inherited_conditions() -> None:
    with pytest.raises(InvalidSpace, match="'unfreeze' to be 2, which Integer\\(0, 1\\) cannot be"):

        class Shallow(Mine):
            unfreeze = Integer(0, 1)


def test_a_space_without_parameters_is_no_search_space() -> None:
    class Nothing(Space):
        pass

    with pytest.raises(InvalidSpace, match="space 'Nothing' declares no parameter; add one"):
        Nothing()


# -------------------------------------------------------------------------------------------------- as data


def test_the_json_form() -> None:
    assert Mine.to_json() == {
        "format": 1,
        "name": "Mine",
        "doc": "Small backbones, heads only.\n\nSecond paragraph:\n  indented.",
        "parameters": {
            "backbone": {"kind": "choice", "values": ["resnet18", "tf_efficientnet_lite0"]},
            "unfreeze": {"kind": "integer", "low": 0, "high": 2},
            "backbone_lr_ratio": {
                "kind": "float",
                "low": 0.02,
                "high": 0.5,
                "log": True,
                "when": {"unfreeze": [1, 2]},
            },
            "lr": {"kind": "float", "low": 0.0001, "high": 0.01, "log": True},
            "batch_size": {"kind": "constant", "value": 32},
        },
    }


def test_the_fingerprint_is_the_same_on_every_machine() -> None:
    class Fixed(Space):
        backbone = Choice("resnet18", "größe")
        lr = Float(1e-4, 1e-2, log=True)

    assert Fixed.fingerprint == "e64f84ce58dbe850380d00967f25057cfafc8798a91c590b0d1c62a35dc4aa45"


def test_spaces_survive_pickling_and_copying() -> None:
    for space in (Mine(), Space.from_json(Mine.to_json())):
        for back in (pickle.loads(pickle.dumps(space)), copy.deepcopy(space)):
            assert back == space
            assert hash(back) == hash(space)
            assert back.doc == space.doc


def test_equality_is_of_name_doc_and_meaning() -> None:
    form = Mine.to_json()
    assert Space.from_json(form) == Mine()
    assert Space.from_json({**form, "name": "Other"}) != Mine()
    assert Space.from_json({**form, "doc": ""}) != Mine()
    assert Mine() != form


def test_repr_names_the_parameters() -> None:
    assert repr(Mine()) == "<space Mine: backbone, unfreeze, backbone_lr_ratio, lr, batch_size>"


# ------------------------------------------------------------------------------------------------ projection


def test_projection_clips_drops_and_fills() -> None:
    config = TrialConfig(
        backbone="resnet18", unfreeze=5, lr=3, backbone_lr_ratio=0.01, batch_size=512, taps=4
    )
    assert Mine.project(config) == {
        "backbone": "resnet18",
        "unfreeze": 2,
        "backbone_lr_ratio": 0.02,
        "lr": 1e-2,
    }
    assert Mine.project(config.model_dump(mode="json")) == Mine.project(config)


def test_projection_needs_the_backbone() -> None:
    class Anywhere(Space):
        lr = Float(0.1, 1)

    class Only(Anywhere):
        backbone = "resnet18"

    foreign = TrialConfig(backbone="resnet50", lr=0.5)
    assert Mine.project(foreign) is None
    assert Only.project(foreign) is None
    assert Anywhere.project(foreign) is None
    assert Only.project(foreign.with_(backbone="resnet18")) == {"lr": 0.5}
    assert Anywhere.project(foreign.with_(backbone=TrialConfig().backbone)) == {"lr": 0.5}


def test_projection_of_a_part_takes_the_rest_from_the_defaults() -> None:
    assert Mine.project({}) == Mine.default()
    assert Mine.project({"unfreeze": 0}) == {"backbone": "resnet18", "unfreeze": 0, "lr": 1e-3}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"lrr": 1}, "cannot project lrr = 1: .*did you mean 'lr'"),
        ({"lr": "high"}, "cannot project lr = 'high'"),
        ([], r"cannot project configuration = \[\]"),
    ],
)
def test_projection_of_what_is_no_configuration_is_refused(config: Any, message: str) -> None:
    with pytest.raises(InvalidSpace, match=message):
        Mine.project(config)


def test_no_parameter_can_hide_a_method() -> None:
    assert not set(TrialConfig.model_fields) & set(dir(Space))
