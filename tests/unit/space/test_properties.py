"""Properties that hold for every valid space, and for everything that is none."""

from __future__ import annotations

import json
import math
from decimal import Decimal
from typing import Any

import numpy as np
import optuna
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from optuna.trial import FixedTrial

from autovision.errors import InvalidSpace
from autovision.space import Choice, Constant, Float, Integer, Space, TrialConfig

INTEGERS = {
    "resolution": (32, 1024),
    "drop_stages": (0, 8),
    "taps": (1, 8),
    "head_width": (8, 4096),
    "unfreeze": (0, 12),
    "adapters": (0, 12),
    "adapter_width": (2, 512),
    "magnitude": (1, 30),
    "views": (0, 64),
    "patience": (0, 1000),
    "epochs": (1, 1000),
    "batch_size": (2, 4096),
}
REALS = {
    "dropout": (0.0, 0.99),
    "layer_decay": (0.01, 1.0),
    "backbone_lr_ratio": (0.01, 1.0),
    "mixup": (0.0, 4.0),
    "cutmix": (0.0, 4.0),
    "lr": (1e-6, 10.0),
    "weight_decay": (0.0, 1.0),
    "label_smoothing": (0.0, 0.99),
    "drop_path": (0.0, 0.99),
    "l2_sp": (0.0, 10.0),
    "warmup": (0.0, 0.99),
    "clip_norm": (0.0, 1000.0),
    "ema": (0.0, 0.99),
    "focal_gamma": (0.01, 10.0),
    "logit_adjustment": (0.0, 3.0),
    "new_weight": (0.01, 100.0),
    "distill": (0.0, 1.0),
}
WORDS: dict[str, tuple[Any, ...]] = {
    "backbone": ("tf_efficientnet_lite0", "resnet18", "größe-b0"),
    "weights": ("pretrained", "random", "store:mine"),
    "pooling": ("avg", "max", "avgmax", "gem", "attention"),
    "head": ("linear", "mlp", "cosine", "attention"),
    "unfreeze_schedule": ("at_once", "gradual"),
    "sampling": ("shuffle", "balanced"),
    "loss": ("cross_entropy", "focal"),
    "augmentation": ("none", "flip", "dihedral", "crop", "randaugment", "trivialaugment"),
    "test_time_augmentation": ("none", "flip", "dihedral"),
    "class_weighting": ("none", "balanced"),
    "confidence_weighting": (False, True),
    "optimizer": ("adamw", "sgd"),
}


# No deadline: on a busy machine the time of one example says nothing about the code.
steady = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def test_the_strategies_below_reach_every_parameter() -> None:
    assert {*INTEGERS, *REALS, *WORDS} == set(TrialConfig.model_fields)


def values_of(name: str) -> st.SearchStrategy[Any]:
    if name in WORDS:
        return st.sampled_from(WORDS[name])
    if name in INTEGERS:
        whole = st.integers(*INTEGERS[name])
        return whole | st.none() if name == "resolution" else whole
    return st.floats(*REALS[name])


@st.composite
def ranges(draw: st.DrawFn, name: str, when: Any) -> Any:
    kind = Integer if name in INTEGERS else Float
    low, high = sorted(draw(st.tuples(*[values_of(name).filter(lambda v: v is not None)] * 2)))
    options: dict[str, Any] = {"when": when}
    if kind is Float and draw(st.booleans()):
        step = draw(st.sampled_from(["0.001", "0.02", "0.1"]))
        low = float(Decimal(repr(low)).quantize(Decimal("0.001")))
        low = max(low, math.ceil(REALS[name][0] * 1000) / 1000)
        steps = draw(st.integers(1, 5))
        high = float(Decimal(repr(low)) + steps * Decimal(step))
        if high <= REALS[name][1] and low > (0.0 if name == "lr" else -1.0):
            default = draw(st.none() | st.integers(0, steps))
            options["default"] = (
                default if default is None else float(Decimal(repr(low)) + default * Decimal(step))
            )
            return Float(low, high, step=float(step), **options)
        low, high = REALS[name]
    if low == high:
        low, high = (INTEGERS if kind is Integer else REALS)[name]
    options["log"] = low > 0 and draw(st.booleans())
    options["default"] = draw(st.none() | st.sampled_from([low, high]))
    return kind(low, high, **options)


@st.composite
def choices(draw: st.DrawFn, name: str, when: Any) -> Choice:
    values = draw(st.lists(values_of(name), min_size=1, max_size=4, unique=True))
    return Choice(*values, default=draw(st.none() | st.sampled_from(values)), when=when)


@st.composite
def conditions(draw: st.DrawFn, known: dict[str, Any]) -> Any:
    """A condition on one or two of the parameters that can be a parent, or none."""
    able = [name for name, value in known.items() if not isinstance(value, Float)]
    if not able or draw(st.booleans()):
        return None
    when: dict[str, Any] = {}
    for parent in draw(st.lists(st.sampled_from(able), min_size=1, max_size=2, unique=True)):
        match known[parent]:
            case Choice(values=values):
                when[parent] = draw(st.lists(st.sampled_from(values), min_size=1, unique=True))
            case Integer(low=low, high=high):
                when[parent] = draw(st.lists(st.integers(low, high), min_size=1, max_size=3, unique=True))
            case Constant(value=value):
                when[parent] = value
    return when


@st.composite
def declarations(draw: st.DrawFn) -> dict[str, Any]:
    """What a valid class body declares."""
    names = draw(
        st.lists(st.sampled_from(sorted(TrialConfig.model_fields)), min_size=1, max_size=8, unique=True)
    )
    known: dict[str, Any] = {}
    for name in names:
        when = draw(conditions(known))
        kinds = [choices(name, when)]
        if name not in WORDS:
            kinds.append(ranges(name, when))
        if when is None:
            kinds.append(st.builds(Constant, values_of(name)))
        known[name] = draw(st.one_of(kinds))
    return known


def make(declared: dict[str, Any], name: str = "Drawn", doc: str = "") -> Space:
    made: type[Space] = type(name, (Space,), {**declared, "__doc__": doc})
    return made()


spaces = st.builds(make, declarations(), doc=st.text())
seeds = st.integers(0, 2**32 - 1)


def a_point(space: Space, seed: int) -> dict[str, Any]:
    return space.sample(np.random.default_rng(seed))


@steady
@given(spaces, st.booleans())
def test_json_brings_back_an_equal_space(space: Space, sort_keys: bool) -> None:
    back = Space.from_json(json.loads(json.dumps(space.to_json(), sort_keys=sort_keys, allow_nan=False)))
    assert back == space
    assert back.to_json() == space.to_json()
    assert dict(back.parameters) == dict(space.parameters)
    assert list(back.parameters) == list(space.parameters)
    assert back.fingerprint == space.fingerprint


@steady
@given(declarations(), seeds, st.data())
def test_neither_order_nor_name_nor_doc_is_part_of_the_meaning(
    declared: dict[str, Any], seed: int, data: st.DataObject
) -> None:
    shuffled = dict(data.draw(st.permutations(list(declared.items()))))
    one, other = make(declared), make(shuffled, "Other", "Another text.")
    assert one.fingerprint == other.fingerprint
    assert a_point(one, seed) == a_point(other, seed)


def changed(form: dict[str, Any]) -> list[dict[str, Any]]:
    """The JSON of spaces that each mean something else in exactly one point."""

    def with_parameter(name: str, parameter: dict[str, Any] | None) -> dict[str, Any]:
        rest = {key: value for key, value in form["parameters"].items() if key != name}
        return {**form, "parameters": rest if parameter is None else {**rest, name: parameter}}

    out = []
    parents = {parent for each in form["parameters"].values() for parent in each.get("when", ())}
    for name, own in form["parameters"].items():
        if own["kind"] == "constant":
            if name not in parents:
                out.append(with_parameter(name, {"kind": "choice", "values": [own["value"]]}))
            continue
        if "when" in own:
            out.append(with_parameter(name, {key: value for key, value in own.items() if key != "when"}))
        if own["kind"] == "choice" and len(own["values"]) > 1:
            first = own.get("default") if own.get("default") is not None else own["values"][0]
            other = next(v for v in reversed(own["values"]) if v != first or type(v) is not type(first))
            if other is not None:
                out.append(with_parameter(name, {**own, "default": other}))
            if name not in parents:
                out.append(with_parameter(name, {"kind": "choice", "values": own["values"][:1]}))
        if own["kind"] != "choice":
            start = Space.from_json(form).parameters[name].start()
            other = own["high"] if start != own["high"] else own["low"]
            out.append(with_parameter(name, {**own, "default": other}))
            if own["low"] > 0 and "step" not in own:
                default = {"default": start}  # spelt out, so that only the scale differs
                scale = {key: value for key, value in own.items() if key != "log"}
                out.append(
                    with_parameter(name, {**scale, **default, **({} if "log" in own else {"log": True})})
                )
        if name not in parents and len(form["parameters"]) > 1:
            out.append(with_parameter(name, None))
    return out


@steady
@given(spaces)
def test_every_change_of_meaning_changes_the_fingerprint(space: Space) -> None:
    others = [Space.from_json(form) for form in changed(space.to_json())]
    assert space.fingerprint not in {other.fingerprint for other in others}


@steady
@given(declarations())
def test_a_default_that_holds_anyway_is_not_part_of_the_meaning(declared: dict[str, Any]) -> None:
    space = make(declared)
    form = space.to_json()
    for name, parameter in space.parameters.items():
        if not isinstance(parameter, Constant):
            form["parameters"][name]["default"] = parameter.middle()
    implicit = {
        name: {key: value for key, value in each.items() if key != "default"}
        for name, each in form["parameters"].items()
    }
    assert Space.from_json(form).fingerprint == Space.from_json({**form, "parameters": implicit}).fingerprint


@steady
@given(spaces, seeds)
def test_samples_and_the_default_are_contained_and_exact(space: Space, seed: int) -> None:
    for point in (a_point(space, seed), space.default()):
        assert space.contains(point)
        assert space.check(point) == point
        assert point == json.loads(json.dumps(point))
        config = space.config(point)
        assert config == config.resolved()
        for name in point:
            assert not space.contains({key: value for key, value in point.items() if key != name})
        for name in TrialConfig.model_fields.keys() - point.keys():
            assert not space.contains({**point, name: getattr(TrialConfig(), name)})


@steady
@given(spaces, seeds)
def test_an_optuna_trial_is_asked_for_contained_points(space: Space, seed: int) -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    for value in (0.0, 1.0):
        trial = study.ask()
        point = space.suggest(trial)
        assert space.contains(point)
        assert trial.params.keys() == point.keys()
        assert space.check(trial.params) == point
        study.tell(trial, value)


@steady
@given(spaces, seeds)
def test_a_known_point_can_be_suggested_again(space: Space, seed: int) -> None:
    point = a_point(space, seed)
    assert space.suggest(FixedTrial(point)) == point


@steady
@given(spaces, spaces, seeds)
def test_projection_gives_contained_points_of_the_same_backbone(
    space: Space, other: Space, seed: int
) -> None:
    config = other.config(a_point(other, seed))
    projected = space.project(config)
    as_record = space.project(json.loads(config.to_json()))
    assert projected == as_record
    backbone = space.parameters.get("backbone", Constant(TrialConfig().backbone))
    if projected is not None:
        assert space.contains(projected)
        assert space.config(projected).backbone == config.backbone
    elif backbone.when is None:
        assert not backbone.holds(config.backbone)


@steady
@given(spaces, seeds)
def test_projection_is_the_identity_on_own_points(space: Space, seed: int) -> None:
    point = a_point(space, seed)
    assert space.project(point) == point


@steady
@given(spaces, seeds)
def test_projection_clips_numbers_to_the_nearest(space: Space, seed: int) -> None:
    config = TrialConfig(
        backbone=space.config(a_point(space, seed)).backbone, lr=10, epochs=1000, unfreeze=12
    )
    projected = space.project(config)
    for name in ("lr", "epochs", "unfreeze"):
        parameter = space.parameters.get(name)
        if projected is not None and name in projected and isinstance(parameter, Float | Integer):
            assert projected[name] == parameter.high


# ------------------------------------------------------------------------------- what is no valid space

garbage = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just(10**400),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


@steady
@given(garbage)
def test_garbage_is_refused(data: Any) -> None:
    with pytest.raises(InvalidSpace):
        Space.from_json(data)


@st.composite
def damaged(draw: st.DrawFn) -> Any:
    """The JSON of a valid space with something else in one place, or with one thing more or less."""
    form = json.loads(json.dumps(draw(spaces).to_json()))
    at: Any = form
    while True:
        key = draw(st.sampled_from(sorted(at) if isinstance(at, dict) else range(len(at))))
        if not isinstance(at[key], dict | list) or not at[key] or draw(st.booleans()):
            break
        at = at[key]
    how = draw(st.sampled_from(["replace", "remove", "add"]))
    if how == "replace" or isinstance(at, list):
        at[key] = draw(garbage)
    elif how == "remove":
        del at[key]
    else:
        at[draw(st.text() | st.sampled_from(["kind", "default", "when", "log", "step", "lr"]))] = draw(
            garbage
        )
    return form


@steady
@given(damaged())
def test_damaged_json_is_refused_or_a_valid_space(data: Any) -> None:
    try:
        space = Space.from_json(data)
    except InvalidSpace as refusal:
        assert len(str(refusal)) < 2000
        return
    assert space.contains(space.default())
    assert Space.from_json(json.loads(json.dumps(space.to_json()))) == space
