"""Every invalid declaration is refused, and the message names the parameter, its value and the remedy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from autovision.errors import InvalidSpace
from autovision.space import Choice, Constant, Float, Integer, Space

INVALID: list[tuple[str, dict[str, Any], str, str]] = [
    # parameter, declaration, value in the message, remedy in the message
    ("lr", {"lr": Float(1e-2, 1e-3)}, "low 0.01 is not below high 0.001", "swap them"),
    ("lr", {"lr": Float(1e-2, 1e-2)}, "low 0.01 is not below high 0.01", "write lr = 0.01 for a constant"),
    ("taps", {"taps": Integer(3, 1)}, "low 3 is not below high 1", "swap them"),
    ("dropout", {"dropout": Float(0, 0.5, log=True)}, "cannot begin at 0.0", "raise low above 0"),
    ("unfreeze", {"unfreeze": Integer(0, 2, log=True)}, "cannot begin at 0", "raise low above 0"),
    ("lr", {"lr": Float(1e-3, 1e-2, log="yes")}, "log is 'yes'", "use True or False"),  # type: ignore[arg-type]
    ("lr", {"lr": Float("a", 1)}, "low 'a' is not a finite number", "write an int or a float"),  # type: ignore[arg-type]
    ("lr", {"lr": Float(0.1, float("inf"))}, "high inf is not a finite number", "write an int or a float"),
    ("lr", {"lr": Float(True, 2)}, "low True is not a finite number", "write an int or a float"),
    ("lr", {"lr": Float(1, 10**400)}, "an int of 1329 bits is too large", "use a smaller number"),
    ("taps", {"taps": Integer(1, 2.5)}, "high 2.5 is not a whole number", "use Float"),  # type: ignore[arg-type]
    (
        "lr",
        {"lr": Float(0, 1)},
        "TrialConfig refuses 0.0: input should be greater than 0",
        "use such a value",
    ),
    (
        "lr",
        {"lr": Float(1, 99)},
        "refuses 99.0: input should be less than or equal to 10",
        "use such a value",
    ),
    ("epochs", {"epochs": Integer(1, 10**5000)}, "an int of 16610 bits", "less than or equal to 1000"),
    (
        "dropout",
        {"dropout": Float(0, 0.5, step=0.2)},
        "0.0 to 0.5 is not a whole number of steps of 0.2",
        "0.6",
    ),
    ("dropout", {"dropout": Float(0, 0.5, step=-0.1)}, "step -0.1 is not above 0", "positive step"),
    ("dropout", {"dropout": Float(0, 0.5, step=1e-300)}, "steps of 1e-300 are more than", "larger step"),
    ("lr", {"lr": Float(0.1, 0.5, step=0.1, log=True)}, "step 0.1 cannot be had together", "leave out one"),
    ("lr", {"lr": Float(0.1, 1, default=2)}, "default 2.0 is not within 0.1 to 1.0", "for instance to 1.0"),
    ("lr", {"lr": Float(0.1, 0.5, step=0.1, default=0.25)}, "default 0.25", "in steps of 0.1; move it there"),
    ("taps", {"taps": Integer(1, 3, default=4)}, "default 4 is not within 1 to 3", "for instance to 3"),
    ("pooling", {"pooling": Choice()}, "Choice(): it has no values", "give at least one"),
    (
        "pooling",
        {"pooling": Choice("avg", "avg")},
        "the value 'avg' stands there twice",
        "give each value once",
    ),
    ("mixup", {"mixup": Choice(0, 0.0)}, "the value 0.0 stands there twice", "give each value once"),
    (
        "pooling",
        {"pooling": Choice("avg", "mean")},
        "refuses 'mean'",
        "'avg', 'max', 'avgmax', 'gem' or 'attention'",
    ),
    (
        "pooling",
        {"pooling": Choice("avg", default="gem")},
        "its default 'gem' is none of its values",
        "add it",
    ),
    ("pooling", {"pooling": Choice(["avg", "gem"])}, "['avg', 'gem'] is of type list", "use a plain value"),  # type: ignore[arg-type]
    ("lr", {"lr": Choice(0.1, np.float64(0.2))}, "is of type float64", "use a plain value"),
    ("pooling", {"pooling": ("avg", "gem")}, "several values are no constant", "write Choice('avg', 'gem')"),
    ("pooling", {"pooling": "avgg"}, "refuses 'avgg'", "'avg', 'max', 'avgmax', 'gem' or 'attention'"),
    ("resolution", {"resolution": 20}, "refuses 20", "greater than or equal to 32"),
    ("batch_size", {"batch_size": "64"}, "'64' is of type str, and TrialConfig wants int", "write 64"),
    ("batch_size", {"batch_size": 64.0}, "64.0 is of type float, and TrialConfig wants int", "write 64"),
    ("confidence_weighting", {"confidence_weighting": 1}, "1 is of type int", "write True"),
    ("confidence_weighting", {"confidence_weighting": Integer(0, 1)}, "0 is of type int", "use Choice"),
    ("unfreeze", {"unfreeze": Float(0, 2)}, "0.0 is of type float, and TrialConfig wants int", "use Integer"),
    ("lr", {"lr": float("nan")}, "nan is not finite", "use a finite number"),
    ("lr", {"lr": Float}, "is of type type", "use a plain value"),
    ("backbone", {"backbone": "\ud800"}, "cannot be written as UTF-8", "without lone surrogates"),
    ("learning_rate", {"learning_rate": 0.1}, "is no field of TrialConfig", "use one of backbone, weights"),
    ("bacbone", {"bacbone": Choice("resnet18")}, "= Choice('resnet18')", "did you mean 'backbone'"),
    ("lr", {"lr": None}, "nothing of that name is inherited", "write Constant(None)"),
    ("sample", {"sample": lambda rng: {}}, "is no field of TrialConfig", "use one of backbone"),
    ("taps", {"taps": Integer(1, 2, when=3)}, "when is 3", "write a condition such as"),  # type: ignore[arg-type]
    ("taps", {"taps": Integer(1, 2, when={})}, "when is {}", "leave it out"),
    (
        "layer_decay",
        {"unfreeze": Integer(0, 2), "layer_decay": Float(0.1, 1, when={"unfreez": 1})},
        "when names 'unfreez', which this space does not declare",
        "did you mean 'unfreeze'",
    ),
    (
        "layer_decay",
        {"unfreeze": Integer(0, 2), "layer_decay": Float(0.1, 1, when={"unfreeze": (1, 3)})},
        "'unfreeze' to be 3, which Integer(0, 2) cannot be",
        "use values that 'unfreeze' can take",
    ),
    (
        "layer_decay",
        {"unfreeze": 0, "layer_decay": Float(0.1, 1, when={"unfreeze": 1})},
        "'unfreeze' to be 1, which Constant(0) cannot be",
        "declare 'layer_decay' anew, or as None",
    ),
    (
        "layer_decay",
        {"unfreeze": Integer(0, 2), "layer_decay": Float(0.1, 1, when={"unfreeze": True})},
        "'unfreeze' to be True",
        "use values that 'unfreeze' can take",
    ),
    (
        "layer_decay",
        {"unfreeze": Integer(0, 2), "layer_decay": Float(0.1, 1, when={"unfreeze": ()})},
        "when gives no value for 'unfreeze'",
        "give at least one",
    ),
    (
        "layer_decay",
        {"unfreeze": Integer(0, 2), "layer_decay": Float(0.1, 1, when={"unfreeze": (1, 1)})},
        "the value 1 stands there twice",
        "give each value once",
    ),
    (
        "taps",
        {"mixup": Float(0, 1), "taps": Integer(1, 2, when={"mixup": 0.5})},
        "when names 'mixup', which is a Float",
        "make 'mixup' a Choice or an Integer",
    ),
    ("taps", {"taps": Integer(1, 2, when={"taps": 1})}, "when names 'taps' itself", "name another parameter"),
    (
        "unfreeze",
        {
            "head": Choice("linear", "mlp", when={"taps": 1}),  # hangs on the circle, is not part of it
            "taps": Integer(1, 2, when={"unfreeze": 1}),
            "unfreeze": Integer(0, 2, when={"drop_stages": 1}),
            "drop_stages": Integer(0, 2, when={"taps": 2}),
        },
        "Integer(0, 2, when={'drop_stages': (1,)})",
        "form a circle; take `when` from one of them",
    ),
]


def shown(part: object) -> str:
    """The same in every process that collects: without an address."""
    return str(part).partition(" at 0x")[0][:40]


@pytest.mark.parametrize(("name", "declared", "value", "remedy"), INVALID, ids=shown)
def test_an_invalid_declaration_is_refused_when_the_class_is_defined(
    name: str, declared: dict[str, Any], value: str, remedy: str
) -> None:
    with pytest.raises(InvalidSpace) as refusal:
        type("Mine", (Space,), declared)
    message = str(refusal.value)
    assert "space 'Mine'" in message
    assert repr(name) in message
    assert value in message
    assert remedy in message
    assert "'head'" not in message, "what only hangs on a circle is no part of it"


def test_a_parameter_that_is_only_annotated_is_refused() -> None:
    with pytest.raises(InvalidSpace, match="parameter 'lr' = nothing: it is only annotated; give it a value"):

        class Mine(Space):
            lr: float
            epochs = 3


def test_long_and_deep_values_are_cut_short_in_messages() -> None:
    deep: Any = "x" * 10_000
    for _ in range(50_000):
        deep = [deep]
    for value in (deep, "y" * 10_000, list(range(10_000)), {str(i): i for i in range(10_000)}):
        with pytest.raises(InvalidSpace) as refusal:
            type("Mine", (Space,), {"pooling": Choice("avg", value), "lr": 0.1})
        assert len(str(refusal.value)) < 1000


def test_values_are_held_as_the_configuration_holds_them() -> None:
    class Mine(Space):
        mixup = Choice(0, 1, 0.5, default=1)
        dropout = Float(0, 0.5)
        weight_decay = Float(-0.0, 1)
        lr = 1
        cutmix = Integer(0, 2)

    declared = {name: repr(parameter) for name, parameter in Mine.parameters.items()}
    assert declared == {
        "dropout": "Float(0.0, 0.5)",
        "mixup": "Choice(0.0, 1.0, 0.5, default=1.0)",
        "cutmix": "Integer(0, 2)",
        "lr": "Constant(1.0)",
        "weight_decay": "Float(0.0, 1.0)",
    }


def test_conditions_may_be_written_in_many_ways_and_have_one_form() -> None:
    forms: list[Any] = [(2, 1), [1, 2], {2, 1}, range(1, 3), (1.0, 2)]
    prints = set()
    for form in forms:
        parameter = Float(0.1, 1, when={"unfreeze": form})
        made = type("Mine", (Space,), {"unfreeze": Integer(0, 2), "layer_decay": parameter})
        assert made.parameters["layer_decay"].when == {"unfreeze": (1, 2)}  # type: ignore[attr-defined]
        prints.add(made.fingerprint)  # type: ignore[attr-defined]
    assert len(prints) == 1


def test_a_constant_can_be_a_parent() -> None:
    class Mine(Space):
        optimizer = "sgd"
        unfreeze = 1
        lr = Float(0.1, 1, when={"optimizer": "sgd"})
        layer_decay = Float(0.1, 1, when={"unfreeze": 1})

    assert Mine.default().keys() == {"lr", "layer_decay"}


def test_parameters_stand_parents_first_then_as_in_the_configuration() -> None:
    class Mine(Space):
        lr = Float(0.1, 1)
        backbone = Choice("resnet18", "resnet50", when={"epochs": (1, 2)})
        taps = Integer(1, 2, when={"backbone": "resnet50"})
        epochs = Integer(1, 5)
        dropout = Constant(0.1)

    assert list(Mine.parameters) == ["dropout", "lr", "epochs", "backbone", "taps"]


def test_names_with_an_underscore_are_the_class_bodys_own() -> None:
    class Mine(Space):
        _small = ("resnet18", "resnet34")
        backbone = Choice(*_small)

    assert list(Mine.parameters) == ["backbone"]
