"""Reading the JSON form: strict, and deaf to what it is asked to run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from autovision.errors import InvalidSpace
from autovision.space import Choice, Float, Integer, Space


class Mine(Space):
    """A text."""

    unfreeze = Integer(0, 2)
    layer_decay = Float(0.4, 1.0, when={"unfreeze": (1, 2)})
    pooling = Choice("avg", "gem")
    batch_size = 64


Change = Callable[[dict[str, Any]], Any]


def put(*path: str, value: Any) -> Change:
    def change(form: dict[str, Any]) -> dict[str, Any]:
        at = form
        for key in path[:-1]:
            at = at[key]
        at[path[-1]] = value
        return form

    return change


def drop(*path: str) -> Change:
    def change(form: dict[str, Any]) -> dict[str, Any]:
        at = form
        for key in path[:-1]:
            at = at[key]
        del at[path[-1]]
        return form

    return change


P = "parameters"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda form: None, "is an object, not None; write one with Space.to_json()"),
        (lambda form: [form], "is an object, not [{"),
        (
            put("fromat", value=1),
            "unknown key 'fromat'; use only format, name, parameters, doc; did you mean 'format'?",
        ),
        (drop("format"), "lacks the key 'format'; it needs format, name, parameters"),
        (drop(P), "lacks the key 'parameters'"),
        (put("format", value=2), "has format 2, and this version of autovision reads 1; write it again"),
        (put("format", value=True), "has format True"),
        (put("name", value="two words"), "has name 'two words'; use a name such as Mine"),
        (put("name", value="x" * 101), "at most 100 of them"),
        (put("name", value="a\0b"), "use a name such as Mine"),
        (put("name", value=3), "has name 3"),
        (put("doc", value=None), "doc is None; use a text"),
        (put("doc", value="\ud800"), "doc is '\\ud800'; use a text"),
        (put(P, value={}), "parameters is {}; use an object with at least one parameter"),
        (put(P, value=[]), "parameters is []"),
        (
            put(P, "lr", value=0.1),
            "'lr' = 0.1: kind is None; use an object with kind float, integer, choice, constant",
        ),
        (put(P, "lr", value={"kind": "flaot"}), "choice, constant; did you mean 'float'"),
        (put(P, "lr", value={"kind": ["float"]}), "kind is ['float']"),
        (put(P, "lr", value={"kind": "float", "low": 1}), "lacks the key 'high'; it needs kind, low, high"),
        (put(P, "batch_size", "when", value={}), "has the unknown key 'when'; use only kind, value"),
        (put(P, "unfreeze", "step", value=1), "has the unknown key 'step'"),
        (put(P, "unfreeze", "high", value="2"), "high '2' is not a whole number"),
        (put(P, "unfreeze", "log", value=1), "log is 1; use True or False"),
        (put(P, "pooling", "values", value="avg"), "values is 'avg'; use an array"),
        (put(P, "pooling", "values", value=[["avg"]]), "['avg'] is of type list"),
        (put(P, "layer_decay", "when", value=[]), "when is []; write a condition"),
        (put(P, "layer_decay", "when", value={"unfreeze": {"a": 1}}), "'unfreeze' to be {'a': 1}"),
        (put(P, "nonsense", value={"kind": "constant", "value": 1}), "'nonsense' is no field of TrialConfig"),
    ],
)
def test_what_is_not_of_the_form_is_refused(change: Change, message: str) -> None:
    with pytest.raises(InvalidSpace) as refusal:
        Space.from_json(change(Mine.to_json()))
    assert message in str(refusal.value)


@pytest.mark.parametrize(
    "name", ["__init_subclass__", "__class__", "_own", "sample", "from_json", "name", "__slots__"]
)
def test_no_name_from_outside_becomes_an_attribute(name: str) -> None:
    before = dict(vars(Space))
    with pytest.raises(InvalidSpace, match="is no field of TrialConfig"):
        Space.from_json(put(P, name, value={"kind": "constant", "value": "x"})(Mine.to_json()))
    assert dict(vars(Space)) == before


def test_text_is_never_evaluated() -> None:
    code = "__import__('os').abort()"
    form = put(P, "backbone", value={"kind": "choice", "values": [code, "resnet18"]})(Mine.to_json())
    space = Space.from_json({**form, "doc": code})
    assert space.config({"backbone": code, "unfreeze": 0, "pooling": "avg"}).backbone == code
    with pytest.raises(InvalidSpace):
        Space.from_json({**form, "name": code})


def test_explicit_nulls_mean_what_leaving_out_means() -> None:
    form = Mine.to_json()
    for name, key in (
        ("unfreeze", "default"),
        ("unfreeze", "when"),
        ("layer_decay", "step"),
        ("pooling", "default"),
    ):
        form[P][name][key] = None
    assert Space.from_json(form) == Mine()


def test_the_doc_may_be_left_out_and_is_otherwise_kept_to_the_letter() -> None:
    form = Mine.to_json()
    assert Space.from_json(drop("doc")(Mine.to_json())).doc == ""
    assert Space.from_json({**form, "doc": "  a\n    b\n"}).doc == "  a\n    b\n"
